"""Constants in a query's tree: what they say, and the ones that stand for a statement's parameters."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa

from datom_flight.protocol.errors import DatomError

from .selects import Select, Tree

_MOMENTS = ("DATE", "TIMESTAMP", "TIMESTAMPTZ", "TIMESTAMP WITH TIME ZONE", "DATETIME", "VARCHAR", "TEXT", "STRING")


def constant_text(node: Mapping[str, Any]) -> str | None:
    """The text of a constant, or of a text given the type of a date or time; None for anything else."""
    if node.get("class") == "CAST":
        named = str(node["type_expr"].get("type_name", "")).upper()
        return constant_text(node["child"]) if named in _MOMENTS else None
    if node.get("class") != "CONSTANT" or node["literal"]["kind"] != "STRING":
        return None
    return str(node["literal"].get("text", ""))


def bind(select: Select, parameters: pa.RecordBatch | None) -> None:
    """Put the values of one row of `parameters` where `select` has its parameters; NULL where there is no row.

    Named parameters take the column of that name, others the columns in order.

    Raises:
        DatomError: ``invalid_argument`` when there are more rows than one, or not as many columns as parameters; when
            a value is of a type that no constant has.
    """
    values = _values(select, parameters)
    _replace(select.tree, values)


def _values(select: Select, parameters: pa.RecordBatch | None) -> dict[str, Tree]:
    names = select.parameters
    if parameters is None:
        return {name: _constant("NULL_LITERAL") for name in names}
    if parameters.num_rows != 1:
        raise DatomError.of("invalid_argument", f"{parameters.num_rows} rows of parameters, expected one")
    if parameters.num_columns != len(names):
        raise DatomError.of(
            "invalid_argument", f"the query has {len(names)} parameters, {parameters.num_columns} values are given"
        )
    given = parameters.schema.names
    by_name = all(not name.isdigit() for name in names) and set(names) == set(given)
    columns = [given.index(name) if by_name else position for position, name in enumerate(names)]
    return {name: _value(parameters.column(column)[0], name) for name, column in zip(names, columns, strict=True)}


def _replace(value: Any, values: Mapping[str, Tree]) -> None:
    waiting = [value]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            if node.get("class") == "PARAMETER":
                kept = {key: node[key] for key in ("alias", "query_location", "query_location_length")}
                constant = values[str(node["identifier"])]
                node.clear()
                node.update(constant, **kept)
                continue
            waiting.extend(node.values())
        elif isinstance(node, list):
            waiting.extend(node)


def _value(scalar: pa.Scalar, name: str) -> Tree:
    kind, value = scalar.type, scalar.as_py()
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if value is None:
        return _constant("NULL_LITERAL")
    if isinstance(value, bool):
        return _constant("BOOLEAN", "true" if value else "false")
    if isinstance(value, str):
        if "\0" in value:
            # the text of a query ends there
            raise DatomError.of("invalid_argument", f'parameter "{name}" holds a NUL character')
        return _constant("STRING", value)
    if isinstance(value, int):
        return _cast(str(value), _INTEGERS.get(str(kind), "BIGINT"))
    if isinstance(value, float):
        return _cast(repr(value), "FLOAT" if pa.types.is_float32(kind) else "DOUBLE")
    if isinstance(value, Decimal) and pa.types.is_decimal(kind) and kind.precision <= 38:
        return _cast(str(value), "DECIMAL", kind.precision, kind.scale)
    if pa.types.is_timestamp(kind) and kind.unit == "ns":
        return _cast(scalar.cast(pa.string()).as_py(), "TIMESTAMPTZ_NS" if kind.tz else "TIMESTAMP_NS")
    if isinstance(value, datetime):
        return _cast(value.isoformat(sep=" "), "TIMESTAMPTZ" if value.tzinfo else "TIMESTAMP")
    if isinstance(value, date):
        return _cast(value.isoformat(), "DATE")
    if isinstance(value, time):
        return _cast(value.isoformat(), "TIME")
    if isinstance(value, timedelta):
        return _cast(f"{value // timedelta(microseconds=1)} microseconds", "INTERVAL")
    if isinstance(value, bytes):
        return _cast("".join(f"\\x{byte:02X}" for byte in value), "BLOB")
    raise DatomError.of("invalid_argument", f'parameter "{name}" is of type {kind}, expected a single value')


_INTEGERS = {
    "int8": "TINYINT",
    "int16": "SMALLINT",
    "int32": "INTEGER",
    "int64": "BIGINT",
    "uint8": "UTINYINT",
    "uint16": "USMALLINT",
    "uint32": "UINTEGER",
    "uint64": "UBIGINT",
}


def _constant(kind: str, text: str = "") -> Tree:
    return {"class": "CONSTANT", "type": "VALUE_CONSTANT", "literal": {"kind": kind, "text": text}}


def _cast(text: str, type_name: str, *arguments: int) -> Tree:
    children = [{**_constant("INTEGER", str(argument)), "alias": ""} for argument in arguments]
    named = {
        "class": "TYPE",
        "type": "TYPE",
        "alias": "",
        "catalog": "",
        "schema": "",
        "type_name": type_name,
        "children": children,
        "qualified_name": {"path": [type_name]},
    }
    return {
        "class": "CAST",
        "type": "OPERATOR_CAST",
        "child": {**_constant("STRING", text), "alias": ""},
        "try_cast": False,
        "type_expr": named,
    }
