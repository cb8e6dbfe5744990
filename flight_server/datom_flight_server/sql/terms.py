"""A compiled part of an expression: what computes it, its type, and what is known of its value."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import acero

from .parser import Node

MAX_CALLS = 10_000
"""Kernel calls in one compiled expression. Parts that are needed twice count twice."""
MAX_BYTES_PER_ROW = 1024
"""What the texts written in an expression may add to a computed row."""

_PIECE_BYTES = 16
_JOINING = ("binary_join_element_wise",)
_COPYING = ("binary_join_element_wise", "if_else", "coalesce")
_COMPARING = ("equal", "not_equal", "less", "less_equal", "greater", "greater_equal")


class Refusal(Exception):  # noqa: N818
    """What is wrong with a part of an expression; the compiler adds where it stands."""

    def __init__(
        self, message: str, node: Node | None = None, *, hint: str = "", code: str = "invalid_argument"
    ) -> None:
        super().__init__(message)
        self.message, self.node, self.hint, self.code = message, node, hint, code


@dataclass(frozen=True, slots=True)
class Code:
    """Something pyarrow computes, and what that takes.

    Attributes:
        expression: computes it.
        calls: of kernels.
        bytes_per_row: that a row of it can take, a stored value apart, as far as the expression's own texts go.
    """

    expression: pc.Expression
    calls: int = 0
    bytes_per_row: int = 0


def call(function: str, *arguments: Code, **options: Any) -> Code:
    """The call of a pyarrow.compute function."""
    calls = 1 + sum(argument.calls for argument in arguments)
    if calls > MAX_CALLS:
        raise Refusal(
            f"the expression needs more than {MAX_CALLS} computations for every row",
            hint="write it simpler, or alternatives as IN (…)",
            code="too_large",
        )
    sizes = [argument.bytes_per_row for argument in arguments]
    size = sum(sizes) + _PIECE_BYTES * len(sizes) if function in _JOINING else max(sizes, default=0)
    if function in _COPYING and size > MAX_BYTES_PER_ROW:
        raise Refusal(
            f"texts are joined or chosen that may take more than {MAX_BYTES_PER_ROW} bytes for every row",
            hint="compare with shorter texts",
            code="too_large",
        )
    expression = getattr(pc, function)(*(argument.expression for argument in arguments), **options)
    return Code(expression, calls, 0 if function in _COMPARING else size)


def cast(code: Code, target: pa.DataType, *, exact: bool = True) -> Code:
    """`code` in another Arrow type; values that do not fit are an error, lost digits of a float only if `exact`."""
    options = pc.CastOptions(target, allow_float_truncate=not exact)
    return Code(code.expression.cast(options=options), code.calls + 1, code.bytes_per_row)


def scalar(value: Any, kind: pa.DataType | None = None) -> Code:
    """A constant."""
    held = value if isinstance(value, pa.Scalar) else pa.scalar(value, kind)
    size = len(held.as_py().encode()) if held.is_valid and str(held.type) in ("string", "large_string") else 0
    return Code(pc.scalar(held), bytes_per_row=size)


@dataclass(frozen=True, slots=True)
class Term:
    """A compiled part of an expression.

    Attributes:
        code: what computes it.
        type: of its values, as `normal_type` gives it.
        node: where it was written.
        constant: its value, when it reads no column.
        literal: the text it was written as, when it is a bare literal, whose type adapts to what it meets.
        column: the name, when it is a column just as it is stored.
        fallible: whether a value can make the computation fail.
        pruning: of a condition: true at least wherever the condition is, whatever statistics leave out (they know no
            NaN); None: nothing is known.
    """

    code: Code
    type: pa.DataType
    node: Node
    constant: pa.Scalar | None = None
    literal: str | None = None
    column: str | None = None
    fallible: bool = False
    pruning: Code | None = None

    @property
    def is_null(self) -> bool:
        """Whether it is a constant without a value."""
        return self.constant is not None and not self.constant.is_valid


def constant(value: pa.Scalar, node: Node, literal: str | None = None) -> Term:
    """The term of a known value."""
    return Term(scalar(value), value.type, node, constant=value, literal=literal)


def derived(
    code: Code,
    kind: pa.DataType,
    node: Node,
    arguments: Iterable[Term],
    *,
    fallible: bool = False,
    pruning: Code | None = None,
) -> Term:
    """The term that `code` computes from `arguments`; its value at once when they are all constants."""
    arguments = list(arguments)
    if all(argument.constant is not None for argument in arguments):
        return constant(evaluate(code, kind, node), node)
    fallible = fallible or any(argument.fallible for argument in arguments)
    return Term(code, kind, node, fallible=fallible, pruning=pruning)


def evaluate(code: Code, kind: pa.DataType, node: Node) -> pa.Scalar:
    """The value of a code that reads no column."""
    one_row = acero.Declaration("table_source", acero.TableSourceNodeOptions(pa.table({"": [True]})))
    project = acero.Declaration("project", acero.ProjectNodeOptions([code.expression], ["value"]))
    try:
        value = acero.Declaration.from_sequence([one_row, project]).to_table(use_threads=False)["value"][0]
        return value if value.type.equals(kind) else value.cast(kind)
    except pa.ArrowException as error:
        raise Refusal(f"cannot be computed: {str(error).splitlines()[0][:200]}", node) from None


def protected(term: Term, guard: Code | None) -> Term:
    """`term`, without a value where `guard` is not true, so that nothing computed from it can fail there."""
    if guard is None or term.constant is not None:
        return term
    return replace(term, code=call("if_else", guard, term.code, scalar(None, term.type)), column=None)
