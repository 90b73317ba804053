"""Text to syntax tree. Any text gives either a `Query` or a `SoqlError`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import Any, TypeVar

from lark import Lark, Token, Transformer, UnexpectedCharacters, UnexpectedEOF, UnexpectedToken, v_args
from lark.exceptions import LarkError

from forcelift.twin.soql.ast import (
    Call,
    Comparison,
    Condition,
    Expression,
    Junction,
    Kind,
    Literal,
    Negation,
    OrderItem,
    Path,
    Query,
    SelectItem,
)
from forcelift.twin.soql.errors import SoqlError, malformed

QUERY_CHARACTERS_MAX = 100_000
# Deeper nesting than any written query; keeps the recursion of the compiler far from Python's own limit.
NESTING_MAX = 60

_KINDS = {
    "STRING": Kind.STRING,
    "NUMBER": Kind.NUMBER,
    "DATETIME": Kind.DATETIME,
    "DATE": Kind.DATE,
    "TIME": Kind.TIME,
    "NULL": Kind.NULL,
    "TRUE": Kind.BOOLEAN,
    "FALSE": Kind.BOOLEAN,
    "NAME": Kind.DATE_LITERAL,
    "DATE_LITERAL_N": Kind.DATE_LITERAL,
}

_T = TypeVar("_T")


class _TooDeep(Exception):
    """Nested beyond `NESTING_MAX`."""


class _TooLarge(Exception):
    """A LIMIT or OFFSET that is not a whole number in range."""

    def __init__(self, token: Token) -> None:
        super().__init__()
        self.token = token


def parse(text: str) -> Query:
    """Read a query.

    Args:
        text: SOQL, at most 100,000 characters.
    Raises:
        SoqlError: MALFORMED_QUERY, with the place where the text stops being SOQL.
    Source:
        Salesforce SOQL and SOSL Reference, "SOQL SELECT Syntax"; 100,000 characters from the limits quick reference.
    """
    if len(text) > QUERY_CHARACTERS_MAX:
        raise SoqlError("MALFORMED_QUERY", "SOQL statements cannot be longer than 100000 characters.")
    try:
        tree: Any = _parser().parse(text)
    except UnexpectedEOF:
        raise malformed(text, len(text), "unexpected token: '<EOF>'") from None
    except UnexpectedToken as error:
        if error.token.type == "$END":
            raise malformed(text, len(text.rstrip()), "unexpected token: '<EOF>'") from None
        raise malformed(text, error.token.start_pos or 0, f"unexpected token: '{error.token}'") from None
    except UnexpectedCharacters as error:
        raise _bad_character(text, error.pos_in_stream or 0) from None
    except _TooDeep:
        raise SoqlError("QUERY_TOO_COMPLICATED", "the query is nested too deeply") from None
    except _TooLarge as error:
        raise malformed(text, error.token.start_pos or 0, f"unexpected token: '{error.token}'") from None
    except LarkError as error:
        raise SoqlError("MALFORMED_QUERY", f"unexpected token: {type(error).__name__}") from error
    if not isinstance(tree, Query):
        raise TypeError(f"the grammar's start rule gave {type(tree).__name__}, not a query")
    return tree


def _bad_character(text: str, position: int) -> SoqlError:
    character = text[position]
    if character == "'":
        return malformed(text, position, "line 1: mismatched character '<EOF>' expecting '''")
    return malformed(text, position, f"unexpected token: '{character}'")


@cache
def _parser() -> Lark:
    grammar = resources.files(__package__).joinpath("soql.lark").read_text(encoding="utf-8")
    return Lark(grammar, parser="lalr", lexer="contextual", transformer=_Builder(), maybe_placeholders=False)


def _deeper(*depths: int) -> int:
    depth = 1 + max(depths, default=0)
    if depth > NESTING_MAX:
        raise _TooDeep
    return depth


def _only(items: Sequence[Any], kind: type[_T]) -> list[_T]:
    return [item for item in items if isinstance(item, kind)]


def _tokens(items: Sequence[Any], *types: str) -> list[Token]:
    return [item for item in items if isinstance(item, Token) and item.type in types]


def _position(token: Token) -> int:
    return token.start_pos or 0


def _expression_depth(expression: Expression) -> int:
    depth = 0
    while isinstance(expression, Call) and expression.arguments:
        expression, depth = expression.arguments[0], depth + 1
    return depth


class _Clause(tuple[str, int, Any]):
    """A clause's name, position and content on its way up to `query`."""

    __slots__ = ()


def _clause(name: str, position: int, content: Any) -> _Clause:
    return _Clause((name, position, content))


def _whole_number(token: Token) -> int:
    if not token.isdigit() or len(token) > 12:
        raise _TooLarge(token)
    return int(token)


class _Builder(Transformer[Token, Any]):
    """Builds the tree while the parser runs, so that nesting never becomes recursion here."""

    @v_args(inline=True)
    def start(self, query: Query) -> Query:
        return query

    def query(self, items: list[Any]) -> Query:
        select: tuple[SelectItem, ...] = next(item for item in items if type(item) is tuple)
        path, alias = next(item for item in items if type(item) is list)
        found = {name: (position, content) for name, position, content in _only(items, _Clause)}

        def content(name: str, default: Any = None) -> Any:
            return found[name][1] if name in found else default

        where: Condition | None = content("WHERE")
        group, having = content("GROUP BY", ((), None))
        inner = [item.query.depth for item in select if item.query is not None]
        return Query(
            select=select,
            object_path=path,
            alias=alias,
            scope=content("USING SCOPE"),
            where=where,
            group_by=group,
            having=having,
            order_by=content("ORDER BY", ()),
            limit=content("LIMIT"),
            offset=content("OFFSET"),
            all_rows="ALL ROWS" in found,
            position=_position(items[0]),
            clauses={name: position for name, (position, _) in found.items()},
            depth=_deeper(where.depth if where else 0, having.depth if having else 0, *inner),
        )

    def select_list(self, items: list[Any]) -> tuple[SelectItem, ...]:
        return tuple(items)

    def select_expression(self, items: list[Any]) -> SelectItem:
        alias = str(items[1]) if len(items) > 1 else None
        return SelectItem(expression=items[0], query=None, alias=alias, position=items[0].position)

    @v_args(inline=True)
    def select_query(self, query: Query) -> SelectItem:
        return SelectItem(expression=None, query=query, alias=None, position=query.position)

    def select_typeof(self, items: list[Any]) -> SelectItem:
        return SelectItem(expression=None, query=None, alias=None, position=_position(items[0]))

    def type_case(self, items: list[Any]) -> None:
        """A WHEN of TYPEOF. The twin carries none out, so nothing is kept of it."""

    def path_list(self, items: list[Any]) -> None:
        """The fields of a WHEN or ELSE of TYPEOF; see `type_case`."""

    def source(self, items: list[Any]) -> list[Any]:
        return [items[0], str(items[1]) if len(items) > 1 else None]

    def scope(self, items: list[Token]) -> _Clause:
        return _clause("USING SCOPE", _position(items[-1]), str(items[-1]))

    def call(self, items: list[Any]) -> Call:
        arguments = tuple(items[1:])
        _deeper(*map(_expression_depth, arguments))
        return Call(name=str(items[0]), arguments=arguments, position=_position(items[0]))

    def path(self, items: list[Token]) -> Path:
        return Path(parts=tuple(map(str, items)), position=_position(items[0]))

    def where(self, items: list[Any]) -> _Clause:
        return _clause("WHERE", _position(items[0]), items[1])

    def conjunction(self, items: list[Any]) -> Junction:
        return self._junction("AND", items)

    def disjunction(self, items: list[Any]) -> Junction:
        return self._junction("OR", items)

    def _junction(self, operator: str, items: list[Any]) -> Junction:
        terms = tuple(item for item in items if not isinstance(item, Token))
        return Junction(operator=operator, terms=terms, depth=_deeper(*(term.depth for term in terms)))

    def negation(self, items: list[Any]) -> Negation:
        return Negation(term=items[-1], depth=_deeper(items[-1].depth))

    def compare(self, items: list[Any]) -> Comparison:
        operator = "!=" if items[1] == "<>" else str(items[1])
        return self._comparison(items[0], operator, (items[2],))

    def like(self, items: list[Any]) -> Comparison:
        return self._comparison(items[0], "LIKE", (items[2],))

    def in_list(self, items: list[Any]) -> Comparison:
        return self._comparison(items[0], "NOT IN" if _tokens(items, "NOT") else "IN", items[-1])

    def in_query(self, items: list[Any]) -> Comparison:
        return self._comparison(items[0], "NOT IN" if _tokens(items, "NOT") else "IN", (), items[-1])

    def includes(self, items: list[Any]) -> Comparison:
        return self._comparison(items[0], "INCLUDES", items[-1])

    def excludes(self, items: list[Any]) -> Comparison:
        return self._comparison(items[0], "EXCLUDES", items[-1])

    def _comparison(
        self, expression: Expression, operator: str, values: Sequence[Literal], query: Query | None = None
    ) -> Comparison:
        return Comparison(
            expression=expression,
            operator=operator,
            values=tuple(values),
            query=query,
            position=expression.position,
            depth=_deeper(query.depth if query else 0),
        )

    def values(self, items: list[Literal]) -> tuple[Literal, ...]:
        return tuple(items)

    def literal(self, items: list[Token]) -> Literal:
        token = items[0]
        text = token[1:-1] if token.type == "STRING" else str(token)
        return Literal(kind=_KINDS[token.type], text=text, position=_position(token))

    def group(self, items: list[Any]) -> _Clause:
        having = _only(items, _Clause)
        expressions = tuple(item for item in items if isinstance(item, Path | Call))
        return _clause("GROUP BY", _position(items[0]), (expressions, having[0][2] if having else None))

    def having(self, items: list[Any]) -> _Clause:
        return _clause("HAVING", _position(items[0]), items[1])

    def order(self, items: list[Any]) -> _Clause:
        return _clause("ORDER BY", _position(items[0]), tuple(_only(items, OrderItem)))

    def order_item(self, items: list[Any]) -> OrderItem:
        return OrderItem(
            expression=items[0], descending=bool(_tokens(items, "DESC")), nulls_last=bool(_tokens(items, "LAST"))
        )

    def nulls(self, items: list[Token]) -> Token:
        return items[1]

    def limit(self, items: list[Token]) -> _Clause:
        return _clause("LIMIT", _position(items[0]), _whole_number(items[1]))

    def offset(self, items: list[Token]) -> _Clause:
        return _clause("OFFSET", _position(items[0]), _whole_number(items[1]))

    def trailer(self, items: list[Token]) -> _Clause:
        return _clause("FOR", _position(items[0]), str(items[1]))

    def all_rows(self, items: list[Token]) -> _Clause:
        return _clause("ALL ROWS", _position(items[0]), True)
