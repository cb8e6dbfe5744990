"""LIKE patterns and regular expressions."""

from __future__ import annotations

import re

import pyarrow as pa
import pyarrow.compute as pc

from .comparisons import compare
from .parser import Node
from .terms import Code, Refusal, Term, call, constant, derived, scalar

MAX_PATTERN_BYTES = 1000

_ANY, _ONE = object(), object()
_FLAGS = {"c": "", "i": "i", "s": "s"}


def like(text: Term, pattern: str, escape: str, node: Node) -> Term:
    """``text LIKE pattern ESCAPE escape``; without an escape character there is none."""
    _check_size(pattern, node)
    parts = _parts(pattern, escape, node)
    stretches = [part for part in parts if isinstance(part, str)]
    if _ONE not in parts and len(stretches) == 1:
        plain = stretches[0]
        if parts == [plain]:
            return compare("=", text, constant(pa.scalar(plain), node, literal=plain), node)
        if parts == [plain, _ANY]:
            starts = call("starts_with", text.code, pattern=plain)
            return derived(starts, pa.bool_(), node, [text], pruning=_from(text, plain))
        if parts == [_ANY, plain]:
            return derived(call("ends_with", text.code, pattern=plain), pa.bool_(), node, [text])
        if parts == [_ANY, plain, _ANY]:
            return derived(call("match_substring", text.code, pattern=plain), pa.bool_(), node, [text])
    wild = {_ANY: ".*", _ONE: "."}
    body = "".join(re.escape(part) if isinstance(part, str) else wild[part] for part in parts)
    code = call("match_substring_regex", text.code, pattern=rf"(?s)\A{body}\z")
    _check_regex(rf"(?s)\A{body}\z", node)
    start = parts[0] if parts and isinstance(parts[0], str) else None
    return derived(code, pa.bool_(), node, [text], pruning=_from(text, start) if start else None)


def _from(text: Term, start: str) -> Code | None:
    """What statistics can tell of texts that begin so."""
    if text.column is None:
        return None
    return call("greater_equal", text.code, scalar(start, text.type))


def _parts(pattern: str, escape: str, node: Node) -> list[object]:
    """A pattern as stretches of plain text between `_ANY` (never two in a row) and `_ONE`."""
    if len(escape) > 1:
        raise Refusal("an escape is one character, or none", node)
    parts: list[object] = []
    characters = iter(pattern)
    for character in characters:
        if character == escape:
            following = next(characters, None)
            if following is None:
                raise Refusal("the pattern ends with the escape character", node)
            character = following
        elif character == "%":
            if not parts or parts[-1] is not _ANY:
                parts.append(_ANY)
            continue
        elif character == "_":
            parts.append(_ONE)
            continue
        if parts and isinstance(parts[-1], str):
            parts[-1] += character
        else:
            parts.append(character)
    return parts or [""]


def matches(text: Term, pattern: str, flags: str, node: Node, *, whole: bool) -> Term:
    """Whether a regular expression (RE2, as in DuckDB) matches somewhere in `text`, or all of it."""
    _check_size(pattern, node)
    unknown = set(flags) - _FLAGS.keys()
    if unknown:
        raise Refusal(f'"{min(unknown)}" is not an option of a regular expression', node, hint='options: "c", "i", "s"')
    _check_regex(pattern, node)
    inner = "".join(_FLAGS[flag] for flag in flags if flag != "i")
    if "i" in flags and flags.rindex("i") > flags.rfind("c"):
        inner += "i"
    body = f"(?{inner}:{pattern})" if inner else f"(?:{pattern})"
    full = rf"\A{body}\z" if whole else body
    _check_regex(full, node)
    return derived(call("match_substring_regex", text.code, pattern=full), pa.bool_(), node, [text])


def _check_size(pattern: str, node: Node) -> None:
    if len(pattern.encode()) > MAX_PATTERN_BYTES:
        raise Refusal(f"a pattern has at most {MAX_PATTERN_BYTES} bytes", node, code="too_large")


def _check_regex(pattern: str, node: Node) -> None:
    try:
        pc.match_substring_regex(pa.array([""]), pattern=pattern)
    except pa.ArrowException as error:
        raise Refusal(f"not a regular expression: {str(error).splitlines()[0][:200]}", node) from None
