"""What a filter of pyarrow's is made of.

An expression shows nothing of its inside, but the form it is pickled in does. That form is not promised to stay, so
what is read from it is put together again and compared: where it is not the same, nothing was understood.
"""

from __future__ import annotations

import io
import operator
import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

_LINE = re.compile(r"^(call|end|field_ref|nested_field_ref|literal|options): '(.*)'$")


@dataclass(frozen=True, slots=True)
class Node:
    """A part of an expression: a call of a function on such parts, a column, a field in a column, or a value."""

    name: str = ""
    arguments: tuple[Node, ...] = ()
    options: Mapping[str, Any] | None = None
    path: tuple[str, ...] = ()
    value: pa.Scalar | None = None

    @property
    def column(self) -> str | None:
        """The name of the column that the part is; None where it is something else."""
        return self.path[0] if len(self.path) == 1 else None

    @property
    def parts(self) -> int:
        """How many there are in this one, itself included."""
        return 1 + sum(argument.parts for argument in self.arguments)

    def columns(self) -> Iterator[str]:
        """The columns that are read."""
        yield from self.path[:1]
        for argument in self.arguments:
            yield from argument.columns()

    def flat(self, name: str) -> Iterator[Node]:
        """The parts that calls of `name` put together, however deep."""
        if self.name != name:
            yield self
            return
        for argument in self.arguments:
            yield from argument.flat(name)

    def expression(self) -> pc.Expression:
        """The part as pyarrow has it. Raises LookupError, TypeError or ValueError: it is of no kind known here."""
        if self.path:
            return pc.field(*self.path)
        if self.value is not None:
            return pc.scalar(self.value)
        given = [argument.expression() for argument in self.arguments]
        return _MAKERS[self.name](*given, **_keywords(self.name, self.options or {}))


def _keywords(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    if name == "is_in":
        return {"value_set": options["value_set"]}
    return {"nan_is_null": options["nan_is_null"]} if name == "is_null" else {}


_MAKERS: Mapping[str, Callable[..., pc.Expression]] = {
    "equal": operator.eq,
    "not_equal": operator.ne,
    "less": operator.lt,
    "less_equal": operator.le,
    "greater": operator.gt,
    "greater_equal": operator.ge,
    "and_kleene": operator.and_,
    "or_kleene": operator.or_,
    "invert": operator.invert,
    "is_valid": lambda part: part.is_valid(),
    "is_null": lambda part, nan_is_null: part.is_null(nan_is_null=nan_is_null),
    "is_in": lambda part, value_set: part.isin(value_set),
    "if_else": pc.if_else,
}


def decoded(expression: pc.Expression) -> Node | None:
    """What `expression` is made of; None where it holds something that is not known here."""
    try:
        with pa.ipc.open_file(io.BytesIO(expression.__reduce__()[1][0])) as reader:
            batch = reader.get_batch(0)
        tokens = deque(_tokens(batch.schema))
        tree = _parsed(tokens, batch)
        same = not tokens and tree.expression().equals(expression)
    except (LookupError, TypeError, ValueError, RecursionError, OSError, pa.ArrowException):
        return None
    return tree if same else None


def _tokens(schema: pa.Schema) -> Iterator[tuple[str, str]]:
    # As a dict, the metadata would have lost all but one of the keys that are the same; as text it has them.
    text = schema.to_string(truncate_metadata=False, show_field_metadata=False)
    for line in text.partition("-- schema metadata --\n")[2].splitlines():
        found = _LINE.match(line)
        if found is None:
            raise ValueError(line)
        yield found[1], found[2]


def _parsed(tokens: deque[tuple[str, str]], batch: pa.RecordBatch) -> Node:
    kind, text = tokens.popleft()
    if kind == "field_ref":
        return Node(path=(text,))
    if kind == "nested_field_ref":
        return Node(path=tuple(tokens.popleft()[1] for _ in range(int(text))))
    if kind == "literal":
        return Node(value=batch.column(int(text))[0])
    if kind != "call":
        raise ValueError(kind)
    arguments: list[Node] = []
    options: Mapping[str, Any] | None = None
    while tokens[0] != ("end", text):
        if tokens[0][0] == "options":
            held = batch.column(int(tokens.popleft()[1]))[0]
            options = {key: held[key].values if key == "value_set" else held[key].as_py() for key in held}
        else:
            arguments.append(_parsed(tokens, batch))
    tokens.popleft()
    return Node(text, tuple(arguments), options)
