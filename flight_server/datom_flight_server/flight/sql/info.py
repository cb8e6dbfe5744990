"""What the server says of itself: SqlInfo."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from importlib.metadata import version
from typing import Any, NamedTuple

import pyarrow as pa

from datom_flight.protocol.messages import MAX_REQUEST_BYTES
from datom_flight.protocol.names import MAX_NAME_LENGTH

_CUSTOM_IDS = 10_000
"""From here on ids are a server's own: a client that asks for everything gets none of them, since drivers know none."""

_CHILDREN = [
    pa.field("string_value", pa.string()),
    pa.field("bool_value", pa.bool_()),
    pa.field("bigint_value", pa.int64()),
    pa.field("int32_bitmask", pa.int32()),
    pa.field("string_list", pa.list_(pa.string())),
    pa.field("int32_to_int32_list_map", pa.map_(pa.int32(), pa.list_(pa.int32()))),
]

SCHEMA = pa.schema(
    [
        pa.field("info_name", pa.uint32(), nullable=False),
        pa.field("value", pa.dense_union(_CHILDREN), nullable=False),
    ]
)


class _Value(NamedTuple):
    """A value, and which child of the union it goes into."""

    child: int
    value: Any


def _text(value: str) -> _Value:
    return _Value(0, value)


def _flag(value: bool) -> _Value:
    return _Value(1, value)


def _length(value: int) -> _Value:
    return _Value(2, value)


def _number(value: int) -> _Value:
    return _Value(3, value)


def _texts(*values: str) -> _Value:
    return _Value(4, list(values))


_KEYWORDS = _texts(
    *("ANTI", "ASOF", "DESCRIBE", "GLOB", "ILIKE", "ISNULL", "LAMBDA", "LIMIT", "NOTNULL", "OFFSET", "PIVOT"),
    *("POSITIONAL", "QUALIFY", "SEMI", "SHOW", "SUMMARIZE", "UNPIVOT"),
)
_NUMERIC_FUNCTIONS = _texts(
    *("abs", "acos", "asin", "atan", "atan2", "ceil", "cos", "cot", "degrees", "exp", "floor", "ln", "log10", "log2"),
    *("mod", "pi", "pow", "power", "radians", "round", "sign", "sin", "sqrt", "tan", "trunc"),
)
_STRING_FUNCTIONS = _texts(
    *("ascii", "chr", "concat", "concat_ws", "contains", "ends_with", "instr", "lcase", "left", "length", "lower"),
    *("lpad", "ltrim", "md5", "position", "regexp_extract", "regexp_matches", "regexp_replace", "repeat", "replace"),
    *("reverse", "right", "rpad", "rtrim", "sha256", "split_part", "starts_with", "strlen", "substring", "trim"),
    *("ucase", "upper"),
)
_DATETIME_FUNCTIONS = _texts(
    *("age", "current_date", "date_diff", "date_part", "date_trunc", "datediff", "day", "dayname", "dayofweek"),
    *("dayofyear", "epoch", "extract", "hour", "last_day", "make_date", "minute", "month", "monthname", "now"),
    *("quarter", "second", "strftime", "strptime", "week", "year"),
)


def _values() -> Mapping[int, _Value]:
    """Every id this server answers, as the specification's enum SqlInfo numbers them."""
    return {
        0: _text("datom-flight"),
        1: _text(version("datom-flight")),
        2: _text(pa.__version__),
        3: _flag(True),  # read only
        4: _flag(True),  # SQL
        5: _flag(False),  # Substrait
        8: _number(1),  # transactions, no savepoints
        9: _flag(False),  # cancelling by a call of its own
        10: _flag(True),  # bulk ingestion
        11: _flag(False),  # ingestion as part of a transaction
        100: _number(0),  # statement timeout: the settings', not the client's
        101: _number(0),  # transaction timeout: none
        500: _flag(False),  # DDL: catalogs, schemas, tables
        501: _flag(False),
        502: _flag(False),
        503: _number(1),  # identifiers are found in any case, also
        504: _text('"'),
        505: _number(1),  # in quotes
        506: _flag(True),
        507: _number(3),  # nulls at the end
        508: _KEYWORDS,
        509: _NUMERIC_FUNCTIONS,
        510: _STRING_FUNCTIONS,
        511: _texts("coalesce", "ifnull", "nullif", "typeof"),
        512: _DATETIME_FUNCTIONS,
        513: _text("\\"),
        514: _text(""),
        515: _flag(True),
        516: _flag(True),
        517: _Value(5, []),  # no conversions by the function CONVERT
        518: _flag(True),
        519: _flag(False),
        520: _flag(True),
        521: _flag(True),
        522: _number(0b11),  # group by: unrelated, beyond select
        523: _flag(True),
        524: _flag(True),
        525: _number(0b111),  # grammar: minimum, core, extended
        526: _number(0b1),  # ANSI 92: entry
        527: _flag(False),
        528: _number(0b110),  # outer joins: limited, full
        529: _text("schema"),
        530: _text("procedure"),
        531: _text("catalog"),
        532: _flag(True),
        533: _number(0),
        534: _number(0),
        535: _number(0),
        536: _flag(False),
        537: _flag(False),
        538: _number(0b1111),  # subqueries: comparisons, exists, in, quantified
        539: _flag(True),
        540: _number(0b11),  # union, union all
        # the greatest lengths and counts; 0 is no limit, or none known
        **{id_: _length(0) for id_ in (*range(541, 556), *range(557, 562))},
        552: _length(MAX_NAME_LENGTH),
        556: _flag(False),
        557: _length(MAX_REQUEST_BYTES),
        559: _length(MAX_NAME_LENGTH),
        # 562 is an int32 by the specification, and the JDBC driver takes it for a long: better left out
        563: _flag(True),
        564: _number(0b1000),  # isolation: repeatable read
        565: _flag(False),
        566: _flag(False),
        567: _number(0b10),  # result sets: forward only
        568: _number(0),
        569: _number(0b10),  # read only
        570: _number(0),
        571: _number(0),
        572: _flag(False),
        573: _flag(False),
        574: _flag(False),
        575: _flag(False),
        576: _flag(False),
        _CUSTOM_IDS: _text("datom storage format 2, as R datom 0.2.0 writes it"),
    }


def sql_info(asked: Collection[int]) -> pa.RecordBatch:
    """The values of these ids, in their order, without those not known; of all that drivers know when none is asked."""
    known = _values()
    ids = [id_ for id_ in asked if id_ in known] if asked else [id_ for id_ in sorted(known) if id_ < _CUSTOM_IDS]
    columns: list[list[Any]] = [[] for _ in _CHILDREN]
    offsets = []
    for id_ in ids:
        child, value = known[id_]
        offsets.append(len(columns[child]))
        columns[child].append(value)
    union = pa.UnionArray.from_dense(
        pa.array([known[id_].child for id_ in ids], pa.int8()),
        pa.array(offsets, pa.int32()),
        [pa.array(values, field.type) for values, field in zip(columns, _CHILDREN, strict=True)],
        [field.name for field in _CHILDREN],
        list(range(len(_CHILDREN))),
    )
    return pa.record_batch([pa.array(ids, pa.uint32()), union], schema=SCHEMA)
