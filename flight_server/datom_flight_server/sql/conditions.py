"""Walks the syntax tree of a condition and compiles every part of it."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc

from .comparisons import combine, compare, distinct, one_of
from .conversions import converted, explicit
from .functions import compile_call, inverted
from .literals import literal
from .parser import Node
from .terms import Code, Refusal, Term, call, cast, constant, derived, scalar
from .types import common_type, is_text, normal_type, type_name, type_of

MAX_NODES = 1_000
"""Parts of an expression, literals in IN lists apart."""
MAX_IN_LITERALS = 10_000

_COMPARISONS = {
    "COMPARE_EQUAL": "=",
    "COMPARE_NOTEQUAL": "<>",
    "COMPARE_LESSTHAN": "<",
    "COMPARE_LESSTHANOREQUALTO": "<=",
    "COMPARE_GREATERTHAN": ">",
    "COMPARE_GREATERTHANOREQUALTO": ">=",
}
_REFUSED = {
    "SUBQUERY": "a subquery",
    "WINDOW": "a window function",
    "PARAMETER": "a parameter",
    "STAR": "a star",
    "LAMBDA": "a lambda",
    "COLLATE": "a collation",
    "POSITIONAL_REFERENCE": "a positional reference",
    "DEFAULT": "DEFAULT",
    "TYPE": "a type",
}


class ConditionCompiler:
    """One walk over a tree. Keeps which columns were met, how many parts, and the guard of the part at hand."""

    def __init__(self, schema: pa.Schema) -> None:
        self._schema = schema
        self._nodes = self._in_literals = 0
        self._guard: Code | None = None
        self.columns: set[str] = set()

    def condition(self, node: Node) -> Term:
        """The term of a node that must be a condition."""
        term = self.term(node)
        if pa.types.is_null(term.type):
            return constant(pa.scalar(None, pa.bool_()), node)
        if not pa.types.is_boolean(term.type):
            hint = "write a comparison, like AGE >= 65" if term.constant is None else "write a comparison with a column"
            raise Refusal(f"this is not a condition but a value of type {type_name(term.type)}", node, hint=hint)
        return term

    def term(self, node: Node) -> Term:
        """The term of any node."""
        self._count()
        kind = node["class"]
        if node.get("alias"):
            raise Refusal("a part of an expression has no name", node)
        if kind in _REFUSED:
            raise Refusal(f"{_REFUSED[kind]} cannot be part of an expression", node)
        compiled = self._by_class().get(kind)
        if compiled is None:
            raise Refusal("this cannot be part of an expression", node)
        return compiled(node)

    def _by_class(self) -> dict[str, Callable[[Node], Term]]:
        return {
            "CONSTANT": literal,
            "COLUMN_REF": self._column,
            "COMPARISON": self._comparison,
            "CONJUNCTION": self._conjunction,
            "BETWEEN": self._between,
            "OPERATOR": self._operator,
            "FUNCTION": self._function,
            "CASE": self._case,
            "CAST": self._cast,
        }

    def _count(self) -> None:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            message = f"the expression has more than {MAX_NODES} parts, literals in IN lists apart"
            raise Refusal(message, hint="write alternatives as IN (…)", code="too_large")

    @contextmanager
    def _guarded(self, condition: Code | None) -> Iterator[None]:
        """Inside, what can fail is computed only where `condition` holds too."""
        before = self._guard
        if condition is not None:
            self._guard = condition if before is None else call("and_kleene", before, condition)
        try:
            yield
        finally:
            self._guard = before

    def _column(self, node: Node) -> Term:
        path = node["column_names"]
        if len(path) != 1:
            whole = ".".join(path)
            hint = (
                f'write "{whole}" in double quotes' if whole in self._schema.names else "write the column's name alone"
            )
            raise Refusal(f'"{whole[:80]}" is a qualified name', node, hint=hint)
        name = self._resolved(path[0], node)
        self.columns.add(name)
        stored = self._schema.field(name).type
        kind = normal_type(stored)
        if pa.types.is_null(kind):
            return constant(pa.scalar(None, kind), node, literal="NULL")
        code = Code(pc.field(name))
        if kind.equals(stored):
            return Term(code, kind, node, column=name)
        return Term(cast(code, kind), kind, node)

    def _resolved(self, name: str, node: Node) -> str:
        names = self._schema.names
        found = [held for held in names if held == name] or [held for held in names if held.lower() == name.lower()]
        if len(found) == 1:
            return str(found[0])
        if found:
            raise Refusal(
                f'"{name[:80]}" could be several columns', node, hint="columns: " + ", ".join(map(_quoted, found[:10]))
            )
        by_lower = {held.lower(): held for held in names}
        near = [by_lower[held] for held in difflib.get_close_matches(name.lower()[:200], by_lower, n=3, cutoff=0.5)]
        shown = near or names[:20]
        hint = ("nearest: " if near else "columns: ") + ", ".join(map(_quoted, shown))
        if not near and len(names) > len(shown):
            hint += ", …"
        raise Refusal(f'no column "{name[:80]}"', node, hint=hint)

    def _comparison(self, node: Node) -> Term:
        left, right = self.term(node["left"]), self.term(node["right"])
        if node["type"] in _COMPARISONS:
            return compare(_COMPARISONS[node["type"]], left, right, node, self._guard)
        if node["type"] in ("COMPARE_DISTINCT_FROM", "COMPARE_NOT_DISTINCT_FROM"):
            return distinct(left, right, node, self._guard, wanted=node["type"] == "COMPARE_DISTINCT_FROM")
        raise Refusal("this comparison is not supported", node)

    def _conjunction(self, node: Node) -> Term:
        """AND, OR. What comes later is computed only where what came before leaves it open."""
        both = node["type"] == "CONJUNCTION_AND"
        terms: list[Term] = []
        still_open: Code | None = None
        for child in node["children"]:
            with self._guarded(still_open):
                term = self.condition(child)
            terms.append(term)
            if not term.fallible and term.constant is None:
                rows = call("coalesce", term.code if both else call("invert", term.code), scalar(True))
                still_open = rows if still_open is None else call("and_kleene", still_open, rows)
        code = combine("and_kleene" if both else "or_kleene", [term.code for term in terms])
        known = [term.pruning for term in terms if term.pruning is not None]
        pruning = None
        if both and known:
            pruning = combine("and_kleene", known)
        elif len(known) == len(terms):
            pruning = combine("or_kleene", known)
        return derived(code, pa.bool_(), node, terms, pruning=pruning)

    def _between(self, node: Node) -> Term:
        value, lower, upper = (self.term(node[key]) for key in ("input", "lower", "upper"))
        kind = common_type([value, lower, upper], node)
        if pa.types.is_floating(kind):
            value, lower, upper = (converted(term, kind) for term in (value, lower, upper))
        ends = [compare(">=", value, lower, node, self._guard), compare("<=", value, upper, node, self._guard)]
        known = [end.pruning for end in ends if end.pruning is not None]
        code = combine("and_kleene", [end.code for end in ends])
        pruning = combine("and_kleene", known) if known else None
        return derived(code, pa.bool_(), node, ends, pruning=pruning)

    def _operator(self, node: Node) -> Term:
        kind, children = node["type"], node["children"]
        if kind == "OPERATOR_NOT":
            return inverted(self.condition(children[0]), node)
        if kind in ("OPERATOR_IS_NULL", "OPERATOR_IS_NOT_NULL"):
            term = self.term(children[0])
            code = call("is_null" if kind == "OPERATOR_IS_NULL" else "is_valid", term.code)
            pruning = code if term.column is not None else None
            return derived(code, pa.bool_(), node, [term], pruning=pruning)
        if kind == "COMPARE_IN":
            return one_of(self.term(children[0]), self._options(children[1:], node), node, self._guard)
        if kind == "OPERATOR_COALESCE":
            return self._coalesce(children, node)
        raise Refusal("this cannot be part of an expression", node)

    def _options(self, nodes: Sequence[Node], node: Node) -> list[Term]:
        options = []
        for option in nodes:
            if option["class"] != "CONSTANT":
                options.append(self.term(option))
                continue
            self._in_literals += 1
            if self._in_literals > MAX_IN_LITERALS:
                message = f"IN lists hold more than {MAX_IN_LITERALS} literals"
                raise Refusal(message, node, hint="ask in parts", code="too_large")
            options.append(literal(option))
        return options

    def _coalesce(self, nodes: Sequence[Node], node: Node) -> Term:
        terms: list[Term] = []
        for child in nodes:
            missing = [call("is_null", term.code) for term in terms if not term.fallible and term.constant is None]
            with self._guarded(combine("and_kleene", missing) if missing else None):
                terms.append(self.term(child))
        kind = common_type(terms, node)
        terms = [converted(term, kind, self._guard) for term in terms]
        return derived(call("coalesce", *(term.code for term in terms)), kind, node, terms)

    def _case(self, node: Node) -> Term:
        conditions: list[Term] = []
        values: list[Term] = []
        before: list[Code] = []
        for check in node["case_checks"]:
            with self._guarded(combine("and_kleene", before) if before else None):
                condition = self.condition(check["when_expr"])
            holds = call("coalesce", condition.code, scalar(False))
            certain = not condition.fallible
            with self._guarded(
                combine("and_kleene", [*before, holds] if certain else before) if before or certain else None
            ):
                values.append(self.term(check["then_expr"]))
            conditions.append(replace(condition, code=holds))
            if certain:
                before.append(call("invert", holds))
        with self._guarded(combine("and_kleene", before) if before else None):
            values.append(self.term(node["else_expr"]))
        return self._chosen(conditions, values, node)

    def _chosen(self, conditions: Sequence[Term], values: Sequence[Term], node: Node) -> Term:
        kind = common_type(values, node)
        values = [converted(value, kind, self._guard) for value in values]
        code = values[-1].code
        for condition, value in zip(reversed(conditions), reversed(values[:-1]), strict=True):
            code = call("if_else", condition.code, value.code, code)
        return derived(code, kind, node, [*conditions, *values])

    def _cast(self, node: Node) -> Term:
        if node.get("try_cast"):
            raise Refusal(
                "TRY_CAST is not supported", node, hint="guard a CAST by CASE, or by a condition and AND before it"
            )
        kind = type_of(node["type_expr"])
        term = self.term(node["child"])
        if is_text(kind) and is_text(term.type):
            return replace(term, node=node, literal=None)
        return explicit(term, kind, node, self._guard)

    def _function(self, node: Node) -> Term:
        name = node["function_name"].lower()
        for key, what in (
            ("distinct", "DISTINCT"),
            ("filter", "FILTER"),
            ("schema", "a schema"),
            ("catalog", "a catalog"),
        ):
            if node.get(key):
                raise Refusal(f"{what} cannot be part of a call", node)
        if (node.get("order_bys") or {}).get("orders") or any(argument.get("name") for argument in node["arguments"]):
            raise Refusal("a call takes plain arguments only", node)
        nodes = [argument["expression"] for argument in node["arguments"]]
        if name == "if" and len(nodes) == 3:
            check = {"when_expr": nodes[0], "then_expr": nodes[1]}
            return self._case({**node, "case_checks": [check], "else_expr": nodes[2]})
        terms = [self.term(child) for child in nodes]
        if name == "nullif" and len(terms) == 2:
            return self._nullif(terms[0], terms[1], node)
        return compile_call(name, terms, node, self._guard)

    def _nullif(self, value: Term, other: Term, node: Node) -> Term:
        equal = compare("=", value, other, node, self._guard)
        same = call("coalesce", equal.code, scalar(False))
        code = call("if_else", same, scalar(None, value.type), value.code)
        return derived(code, value.type, node, [value, other, equal])


def _quoted(name: str) -> str:
    return '"' + name[:80] + '"'
