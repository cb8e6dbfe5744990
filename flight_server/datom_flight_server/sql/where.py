"""A SQL condition over a table's columns, compiled for pyarrow."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from .conditions import ConditionCompiler
from .parser import ExpressionParser, Node, Source, place
from .recent import Recent
from .terms import Refusal, scalar

_KEPT_FILTERS = 100
_MAX_KEPT_TEXT = 4096


@dataclass(frozen=True, slots=True)
class Filter:
    """A compiled condition.

    Attributes:
        expression: keeps exactly the rows for which the condition is true: ``batch.filter(expression)``.
        columns: what `expression` reads, in the schema's order.
        pruning: true at least wherever `expression` is, also for rows that statistics do not know of (NaN): only for
            leaving out row groups by their statistics.
    """

    expression: pc.Expression
    columns: tuple[str, ...]
    pruning: pc.Expression


class WhereCompiler:
    """Compiles the texts of conditions. Safe to use from many threads.

    What it compiled lately is kept: each ticket of a read brings the same text again.
    """

    def __init__(self) -> None:
        self._parser = ExpressionParser()
        self._filters: Recent[tuple[str, pa.Schema], Filter] = Recent(_KEPT_FILTERS)

    def close(self) -> None:
        """Let go of the parser. Compiling afterwards is an error."""
        self._parser.close()

    def compile(self, text: str, schema: pa.Schema) -> Filter:
        """The filter that `text` describes, over a table of `schema`; rows pass as they would in DuckDB.

        `Filter.expression` may raise `pyarrow.ArrowInvalid` for values it cannot compute with (overflow, division by
        zero, a text that is not a number), as DuckDB would.

        Raises:
            InvalidRequestError: ``invalid_argument`` naming the place, or ``too_large``.
        """
        known = self._filters.get((text, schema))
        if known is not None:
            return known
        source = Source(text)
        tree = self._parser.parse(source)
        try:
            compiled = _compiled(tree, schema)
            if len(text) <= _MAX_KEPT_TEXT:
                self._filters.put((text, schema), compiled)
            return compiled
        except Refusal as error:
            refusal = error
        except RecursionError:
            refusal = Refusal("the expression is nested too deep", hint="nest less", code="too_large")
        offset, length = (refusal.node and _place(refusal.node)) or (None, 0)
        hint = refusal.hint or "see docs/where.md for what may be written"
        raise source.error(refusal.message, offset, length=length, hint=hint, code=refusal.code)


def _place(node: Node) -> tuple[int, int] | None:
    """Where `node` stands; an operator made by the parser stands where its first part does."""
    found = place(node)
    if found is not None:
        return found
    children = [node.get(key) for key in ("child", "left", "input")]
    children += [argument["expression"] for argument in node.get("arguments") or []] + list(node.get("children") or [])
    return next((found for child in children if child and (found := _place(child))), None)


def _compiled(tree: Node, schema: pa.Schema) -> Filter:
    compiler = ConditionCompiler(schema)
    term = compiler.condition(tree)
    expression = term.code.expression
    columns = tuple(name for name in schema.names if name in compiler.columns)
    if term.constant is not None:
        return Filter(expression, columns, scalar(bool(term.constant.as_py())).expression)
    try:
        pa.schema([schema.field(name) for name in columns]).empty_table().filter(expression)
    except (pa.ArrowException, TypeError) as error:
        raise Refusal(f"cannot be computed: {str(error).splitlines()[0][:200]}", tree) from None
    return Filter(expression, columns, (term.pruning or scalar(True)).expression)
