"""The SQL types that columns have, as XDBC describes types."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import pyarrow as pa

SCHEMA = pa.schema(
    [
        pa.field("type_name", pa.string(), nullable=False),
        pa.field("data_type", pa.int32(), nullable=False),
        pa.field("column_size", pa.int32()),
        pa.field("literal_prefix", pa.string()),
        pa.field("literal_suffix", pa.string()),
        pa.field("create_params", pa.list_(pa.field("item", pa.string(), nullable=False))),
        pa.field("nullable", pa.int32(), nullable=False),
        pa.field("case_sensitive", pa.bool_(), nullable=False),
        pa.field("searchable", pa.int32(), nullable=False),
        pa.field("unsigned_attribute", pa.bool_()),
        pa.field("fixed_prec_scale", pa.bool_(), nullable=False),
        pa.field("auto_increment", pa.bool_()),
        pa.field("local_type_name", pa.string()),
        pa.field("minimum_scale", pa.int32()),
        pa.field("maximum_scale", pa.int32()),
        pa.field("sql_data_type", pa.int32(), nullable=False),
        pa.field("datetime_subcode", pa.int32()),
        pa.field("num_prec_radix", pa.int32()),
        pa.field("interval_precision", pa.int32()),
    ]
)

_NULLABLE = 1
_SEARCHABLE = 3
_DATETIME = 9


@dataclass(frozen=True, slots=True)
class _Type:
    """One row; what is not given is unknown, or has no meaning for the type."""

    type_name: str
    data_type: int
    column_size: int | None
    num_prec_radix: int | None = None
    unsigned_attribute: bool | None = None
    literal_prefix: str | None = None
    literal_suffix: str | None = None
    create_params: tuple[str, ...] | None = None
    maximum_scale: int | None = None
    datetime_subcode: int | None = None


def _signed(name: str, code: int, digits: int) -> _Type:
    return _Type(name, code, digits, 10, unsigned_attribute=False)


def _unsigned(name: str, code: int, digits: int) -> _Type:
    return _Type(name, code, digits, 10, unsigned_attribute=True)


def _moment(name: str, code: int, width: int, subcode: int) -> _Type:
    return _Type(name, code, width, literal_prefix=f"{name} '", literal_suffix="'", datetime_subcode=subcode)


_TYPES = (
    _signed("TINYINT", -6, 3),
    _signed("BIGINT", -5, 19),
    _unsigned("UBIGINT", -5, 20),
    _Type("BLOB", -3, None, literal_prefix="'", literal_suffix="'::BLOB"),
    _Type("BOOLEAN", -7, 1),
    _Type("DECIMAL", 3, 38, 10, False, create_params=("precision", "scale"), maximum_scale=38),
    _signed("INTEGER", 4, 10),
    _unsigned("UINTEGER", 4, 10),
    _signed("SMALLINT", 5, 5),
    _unsigned("USMALLINT", 5, 5),
    _unsigned("UTINYINT", 5, 3),
    _Type("FLOAT", 7, 24, 2, False),
    _Type("DOUBLE", 8, 53, 2, False),
    _Type("VARCHAR", 12, None, literal_prefix="'", literal_suffix="'"),
    _moment("DATE", 91, 10, 1),
    _moment("TIME", 92, 15, 2),
    _moment("TIMESTAMP", 93, 26, 3),
    _moment("TIMESTAMPTZ", 93, 32, 3),
    _Type("INTERVAL", 10, None, literal_prefix="INTERVAL '", literal_suffix="'"),
)


def type_info(data_type: int | None) -> pa.RecordBatch:
    """The types with this XDBC code, or all, by code."""
    rows = []
    for type_ in sorted(_TYPES, key=lambda known: known.data_type):
        if data_type in (None, type_.data_type):
            row = asdict(type_) | {
                "nullable": _NULLABLE,
                "case_sensitive": type_.type_name == "VARCHAR",
                "searchable": _SEARCHABLE,
                "fixed_prec_scale": False,
                "auto_increment": False if type_.num_prec_radix else None,
                "local_type_name": type_.type_name,
                "minimum_scale": None if type_.maximum_scale is None else 0,
                "sql_data_type": type_.data_type if type_.datetime_subcode is None else _DATETIME,
            }
            rows.append(row)
    return pa.RecordBatch.from_pylist(rows, schema=SCHEMA)
