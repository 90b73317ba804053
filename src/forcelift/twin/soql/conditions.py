"""WHERE and HAVING to DuckDB conditions, with Salesforce's rules for null, case and lists.

SOQL knows two truth values: `Name != 'x'` holds for a null, and NOT turns every record that does not match into one
that does. SQL has three, so whatever is negated is first made true or false.
"""

from __future__ import annotations

from collections.abc import Callable

from forcelift.twin.soql.ast import Comparison, Condition, Expression, Junction, Kind, Literal, Negation, Query
from forcelift.twin.soql.errors import located, malformed
from forcelift.twin.soql.literals import Bound, Literals, constant
from forcelift.twin.soql.resolve import require_filterable
from forcelift.twin.soql.views import Category, Operand

_ORDERING = frozenset({"<", "<=", ">", ">="})
_LISTS = frozenset({"IN", "NOT IN"})
_MULTI = frozenset({"INCLUDES", "EXCLUDES"})
_OPERATORS = {
    Category.BOOLEAN: frozenset({"=", "!=", *_LISTS}),
    Category.TEXT: frozenset({"=", "!=", "LIKE", *_ORDERING, *_LISTS}),
}
_USUAL = frozenset({"=", "!=", *_ORDERING, *_LISTS})

Resolve = Callable[[Expression], Operand]
SemiJoin = Callable[[Operand, Query], str]


class Conditions:
    """Writes the conditions of one SELECT.

    Args:
        literals: Checks and quotes the values.
        resolve: Turns an expression into an operand; decides whether aggregates may stand here.
        semi_join: Writes the inner SELECT of `IN (SELECT ...)`; None where none may stand.
    """

    def __init__(self, literals: Literals, resolve: Resolve, semi_join: SemiJoin | None) -> None:
        self.literals = literals
        self.text = literals.text
        self.resolve = resolve
        self.semi_join = semi_join

    def sql(self, condition: Condition) -> str:
        """The condition in parentheses; null where SQL cannot tell, which WHERE takes for false."""
        match condition:
            case Junction():
                joint = f" {condition.operator} "
                return f"({joint.join(map(self.sql, condition.terms))})"
            case Negation():
                return f"(NOT coalesce({self.sql(condition.term)}, false))"
            case Comparison():
                return f"({self._comparison(condition)})"

    def _comparison(self, comparison: Comparison) -> str:
        operand = self.resolve(comparison.expression)
        require_filterable(self.text, operand)
        operator = comparison.operator
        if comparison.query is not None:
            return self._semi_join(operand, operator, comparison.query)
        allowed = _MULTI | {"=", "!=", *_LISTS} if operand.is_multi else _OPERATORS.get(operand.category, _USUAL)
        if operator not in allowed:
            raise self._wrong_operator(operand)
        match operator:
            case "=":
                return self._equal(operand, comparison.values[0])
            case "!=":
                return self._unequal(operand, comparison.values[0])
            case "LIKE":
                return self._like(operand, comparison.values[0])
            case "IN":
                return self._any_of(operand, comparison.values)
            case "NOT IN":
                return f"NOT coalesce({self._any_of(operand, comparison.values)}, false)"
            case "INCLUDES":
                return self._includes(operand, comparison.values)
            case "EXCLUDES":
                return f"NOT coalesce({self._includes(operand, comparison.values)}, false)"
            case _:
                return self._ordered(operand, operator, comparison.values[0])

    def _wrong_operator(self, operand: Operand) -> Exception:
        kind = "id" if operand.category is Category.ID else operand.category.value
        reason = f"invalid operator on {kind} field"
        return located(self.text, operand.position, "INVALID_QUERY_FILTER_OPERATOR", reason)

    def _equal(self, operand: Operand, literal: Literal) -> str:
        return _equal_sql(self.literals.bound(operand, literal))

    def _unequal(self, operand: Operand, literal: Literal) -> str:
        bound = self.literals.bound(operand, literal)
        if bound.right is None:
            return f"{bound.left} IS NOT NULL"
        if bound.right_end is None:
            return f"{bound.left} IS DISTINCT FROM {bound.right}"
        return f"NOT coalesce({_equal_sql(bound)}, false)"

    def _ordered(self, operand: Operand, operator: str, literal: Literal) -> str:
        bound = self.literals.bound(operand, literal)
        if bound.right is None:
            return "false"
        if bound.right_end is not None and operator in (">", "<="):
            # After a range of days means after its last one; `<=` runs to its end.
            return f"{bound.left} {'>=' if operator == '>' else '<'} {bound.right_end}"
        return f"{bound.left} {operator} {bound.right}"

    def _like(self, operand: Operand, literal: Literal) -> str:
        if literal.kind is Kind.NULL:
            return f"{operand.sql} IS NULL"
        if literal.kind is not Kind.STRING:
            self.literals.bound(operand, literal)
        pattern = constant(self.literals.pattern(literal))
        matches = "LIKE" if operand.case_sensitive else "ILIKE"
        return f"{operand.sql} {matches} CAST({pattern} AS VARCHAR) ESCAPE '\\'"

    def _any_of(self, operand: Operand, values: tuple[Literal, ...]) -> str:
        bounds = [self.literals.bound(operand, literal) for literal in values]
        by_left: dict[str, list[str]] = {}
        alternatives: list[str] = []
        for bound in bounds:
            if bound.right is None or bound.right_end is not None:
                alternatives.append(_equal_sql(bound))
            else:
                by_left.setdefault(bound.left, []).append(bound.right)
        alternatives += [f"{left} IN ({', '.join(rights)})" for left, rights in by_left.items()]
        return f"({' OR '.join(dict.fromkeys(alternatives))})"

    def _includes(self, operand: Operand, values: tuple[Literal, ...]) -> str:
        alternatives = []
        for literal in values:
            if literal.kind is not Kind.STRING:
                raise malformed(self.text, literal.position, f"unexpected token: '{literal.text}'")
            wanted = [part.strip() for part in self.literals.string(literal).split(";")]
            held = f"string_split(lower({operand.sql}), ';')"
            parts = [f"list_contains({held}, lower(CAST({constant(part)} AS VARCHAR)))" for part in wanted]
            alternatives.append(f"({' AND '.join(parts)})")
        return f"({' OR '.join(alternatives)})"

    def _semi_join(self, operand: Operand, operator: str, query: Query) -> str:
        if self.semi_join is None:
            raise malformed(self.text, query.position, "Nesting of semi join sub-selects is not supported")
        inner = self.semi_join(operand, query)
        if operator == "IN":
            return f"{operand.sql} IN ({inner})"
        return f"NOT coalesce({operand.sql} IN ({inner}), false)"


def _equal_sql(bound: Bound) -> str:
    if bound.right is None:
        return f"{bound.left} IS NULL"
    if bound.right_end is None:
        return f"{bound.left} = {bound.right}"
    return f"({bound.left} >= {bound.right} AND {bound.left} < {bound.right_end})"
