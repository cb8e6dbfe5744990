"""The exact JSON text that R's jsonlite writes: compact, which versions are hashed from, and pretty, which is stored.

R has two kinds of arrays, and they print differently: a vector stands on one line and, when it has one element, loses
its brackets; a list has one element a line. Here a tuple is a vector and a list is a list.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

from datom_flight.protocol.errors import InvalidRequestError

_INTEGER_LIMIT = 2**31
_FIXED_LIMITS = (1e-5, 2147483647.0)
_DECIMALS = 4
_SPECIAL_NUMBERS = ("NA", "NaN", "Inf", "-Inf")


def compact(value: Any) -> bytes:
    """`value` as JSON without spaces.

    Raises:
        InvalidRequestError: ``invalid_argument`` when something in it has no form in R.
    """
    return _encoded(_compact, value)


def pretty(value: Any) -> bytes:
    """`value` as a document: two spaces a level, one newline at the end.

    Raises:
        InvalidRequestError: ``invalid_argument`` when something in it has no form in R.
    """
    return _encoded(lambda whole: _pretty(whole, "\n") + "\n", value)


def parse(text: str | bytes) -> Any:
    """The value of a JSON text; unlike `json.loads` alone it keeps the sign of ``-0``, which is part of a version.

    Raises:
        ValueError: when it is not JSON.
    """
    return json.loads(text, parse_int=_parse_int, parse_constant=_refuse_constant)


def as_vectors(value: Any) -> Any:
    """`value` with every list that R would have held as a vector made a tuple.

    JSON does not tell the two apart, so this is for documents that R wrote from memory: several scalars of one type
    are taken for a vector, one alone for a list, since a vector of one would have lost its brackets.
    """
    if isinstance(value, Mapping):
        return {key: as_vectors(item) for key, item in value.items()}
    if isinstance(value, list):
        return tuple(value) if _is_vector(value) else [as_vectors(item) for item in value]
    return value


def as_read_by_r(value: Any) -> Any:
    """`value` as R holds it once read from a file: null is an empty object, zero has no sign, arrays are lists.

    R hashes again what it reads again, so that a document with such a value gets another version than at first.
    """
    if isinstance(value, Mapping):
        return {key: as_read_by_r(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_read_by_r(item) for item in value]
    if value is None:
        return {}
    return 0 if value == 0 and isinstance(value, float) else value


def _parse_int(digits: str) -> int | float:
    return -0.0 if digits == "-0" else int(digits)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _encoded(text_of: Callable[[Any], str], value: Any) -> bytes:
    try:
        return text_of(value).encode()
    except UnicodeEncodeError:
        raise InvalidRequestError("a text is not valid Unicode: it holds half of a surrogate pair") from None
    except RecursionError:
        raise InvalidRequestError("a value is nested too deeply to be written as JSON") from None


def _compact(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{_text(key)}:{_compact(item)}" for key, item in value.items()) + "}"
    if isinstance(value, tuple) and len(value) == 1:
        return _scalar(value[0])
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(_compact, value)) + "]"
    return _scalar(value)


def _pretty(value: Any, newline: str) -> str:
    deeper = newline + "  "
    if isinstance(value, Mapping) and value:
        lines = (f"{_text(key)}: {_pretty(item, deeper)}" for key, item in value.items())
        return "{" + deeper + f",{deeper}".join(lines) + newline + "}"
    if isinstance(value, list) and value:
        return "[" + deeper + f",{deeper}".join(_pretty(item, deeper) for item in value) + newline + "]"
    if isinstance(value, tuple) and len(value) > 1:
        return "[" + ", ".join(map(_scalar, value)) + "]"
    return _compact(value)


def _scalar(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, int | float):
        return _number(value)
    raise InvalidRequestError(
        f"a value of type {type(value).__name__} cannot be written as JSON",
        hint="use texts, numbers, logicals, lists and dictionaries",
    )


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise InvalidRequestError(f"a key is of type {type(value).__name__}, not a text")
    if "\0" in value:
        raise InvalidRequestError("a text holds a NUL character, which no R string can")
    return json.dumps(value, ensure_ascii=False)


def _number(value: int | float) -> str:
    if isinstance(value, int):
        if abs(value) < _INTEGER_LIMIT:
            return str(value)
        value = _nearest_double(value)
    if not math.isfinite(value):
        return '"NaN"' if math.isnan(value) else ('"Inf"' if value > 0 else '"-Inf"')
    size = abs(value)
    if _FIXED_LIMITS[0] < size < _FIXED_LIMITS[1]:
        return ("-" if value < 0 else "") + _fixed(size)
    digits = math.ceil(min(15.0, max(1.0, math.log10(size) if size else 1.0) + _DECIMALS))
    return f"{value:.{digits}g}"


def _nearest_double(value: int) -> float:
    # R has no wider integer, and reads one that is too large for a double as infinite.
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _fixed(size: float) -> str:
    # Rounding the scaled fraction, not the number itself, is what jsonlite does: the two differ in the last digit.
    whole = math.floor(size)
    fraction = round((size - whole) * 10**_DECIMALS)
    whole, fraction = whole + fraction // 10**_DECIMALS, fraction % 10**_DECIMALS
    return f"{whole}.{fraction:0{_DECIMALS}d}".rstrip("0").rstrip(".")


def _is_vector(items: list[Any]) -> bool:
    present = [item for item in items if item is not None]
    return len(items) > 1 and (
        all(isinstance(item, str) for item in present)
        or all(isinstance(item, bool) for item in present)
        or all(_is_number(item) for item in present)
    )


def _is_number(item: Any) -> bool:
    return (isinstance(item, int | float) and not isinstance(item, bool)) or item in _SPECIAL_NUMBERS
