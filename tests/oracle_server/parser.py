"""The grammar of expressions and queries that this server was taught. Whatever else comes is an error.

A node is its kind, its parts and where it stands; the compilers go by the kind.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from tests.oracle_server.errors import OracleError, not_taught
from tests.oracle_server.tokens import Token, tokens_of

_RESERVED = frozenset(
    [
        "SELECT",
        "FROM",
        "WHERE",
        "GROUP",
        "ORDER",
        "HAVING",
        "UNION",
        "MINUS",
        "INTERSECT",
        "ON",
        "AND",
        "OR",
        "NOT",
        "IN",
        "BETWEEN",
        "LIKE",
        "IS",
        "NULL",
        "AS",
        "BY",
        "VALUES",
        "SET",
        "INTO",
        "FOR",
        "CONNECT",
        "START",
        "WITH",
        "CASE",
        "WHEN",
        "THEN",
        "ELSE",
        "DISTINCT",
        "ALL",
        "ANY",
        "EXISTS",
        "INSERT",
        "UPDATE",
        "DELETE",
        "TABLE",
        "INDEX",
        "CREATE",
        "DROP",
        "ALTER",
        "GRANT",
        "REVOKE",
        "ASC",
        "DESC",
        "CHECK",
        "DEFAULT",
        "UNIQUE",
    ]
)
_AFTER_TABLE = _RESERVED | frozenset(
    ["JOIN", "INNER", "LEFT", "RIGHT", "FULL", "CROSS", "NATURAL", "OFFSET", "FETCH", "USING", "RETURNING", "LOG"]
)


@lru_cache(maxsize=1024)
def parsed_query(statement: str) -> Node:
    """The whole statement as a query."""
    parser = Parser(statement)
    node = parser.query()
    parser.finish()
    return node


@dataclass(frozen=True, slots=True)
class Node:
    """A part of a statement."""

    kind: str
    parts: tuple[Any, ...] = ()
    at: int = 0


# fmt: off
_CLAUSES = frozenset((
    "AUTHORIZATION", "BITMAP", "BOTH", "CLUSTER", "COMPRESS", "CONTAINERS", "CROSS", "DROP", "EXTERNAL", "FORCE",
    "GLOBAL", "IGNORE", "INMEMORY", "KEEP", "LATERAL", "LEADING", "LOB", "LOCAL", "LOG", "LOGGING",
    "MATCH_RECOGNIZE", "MODEL", "MODIFY", "NATURAL", "NESTED", "NOLOGGING", "ORGANIZATION", "OVER", "OVERFLOW",
    "PARALLEL", "PIVOT", "RENAME", "RESPECT", "REVERSE", "ROW", "STORAGE", "STORE", "TABLESPACE", "TRAILING",
    "UNPIVOT", "VERSIONS", "VIRTUAL", "WINDOW", "WITHIN",
))
# fmt: on


class Parser:
    """Reads one statement from left to right."""

    def __init__(self, statement: str) -> None:
        self.statement = statement
        self._tokens = tokens_of(statement)
        self._index = 0

    # The cursor.

    @property
    def here(self) -> Token:
        return self._tokens[self._index]

    def ahead(self, count: int = 1) -> Token:
        return self._tokens[min(self._index + count, len(self._tokens) - 1)]

    def next(self) -> Token:
        token = self.here
        self._index += token.kind != "end"
        return token

    def sees(self, *words: str) -> bool:
        """True if these unquoted words or marks come next, in this order."""
        ahead = (self.ahead(at) for at in range(len(words)))
        return all(one.kind in ("word", "mark") and one.text == word for one, word in zip(ahead, words, strict=True))

    def takes(self, *words: str) -> bool:
        """Go past these words if they come next."""
        seen = self.sees(*words)
        if seen:
            self._index += len(words)
        return seen

    def expect(self, *words: str, code: int = 933) -> None:
        if not self.takes(*words):
            self._know_clauses()
            raise OracleError(code, detail=f"`{' '.join(words)}` was expected", position=self.here.at)

    def identifier(self) -> str:
        token = self.next()
        if token.kind == "quoted" or (token.kind == "word" and token.text not in _RESERVED):
            return token.text
        raise OracleError(904, token.text, position=token.at)

    def name(self) -> tuple[str | None, str]:
        """A schema, if one is named, and a name."""
        first = self.identifier()
        if self.takes("."):
            return first, self.identifier()
        return None, first

    def whole(self) -> int:
        token = self.next()
        if token.kind != "number" or not token.text.isdigit():
            raise OracleError(933, position=token.at)
        return int(token.text)

    def text(self) -> str:
        token = self.next()
        if token.kind != "string":
            raise OracleError(933, position=token.at)
        return token.text

    def names(self) -> list[str]:
        """Names in parentheses."""
        self.expect("(")
        found = [self.identifier()]
        while self.takes(","):
            found.append(self.identifier())
        self.expect(")")
        return found

    def finish(self) -> None:
        self.takes(";")
        if self.here.kind != "end":
            self._know_clauses()
            raise OracleError(933, detail=f"at `{self.here.text[:30]}`", position=self.here.at)

    def _know_clauses(self) -> None:
        """What Oracle has and this server was not taught is refused as such, not as a fault of the statement."""
        if self.here.kind == "word" and self.here.text in _CLAUSES:
            raise not_taught(f"{self.here.text} here")

    # Expressions.

    def expression(self) -> Node:
        left = self._conjunction()
        while self.sees("OR"):
            left = Node("or", (left, self._after(self._conjunction)), self.here.at)
        return left

    def value(self) -> Node:
        """An expression that is no condition."""
        return self._concatenation()

    def expressions(self) -> list[Node]:
        found = [self.expression()]
        while self.takes(","):
            found.append(self.expression())
        return found

    def _after(self, parse: Any) -> Node:
        self.next()
        node: Node = parse()
        return node

    def _conjunction(self) -> Node:
        left = self._negation()
        while self.sees("AND"):
            left = Node("and", (left, self._after(self._negation)), self.here.at)
        return left

    def _negation(self) -> Node:
        if self.sees("NOT"):
            return Node("not", (self._after(self._negation),), self.here.at)
        if self.sees("EXISTS"):
            self.next()
            self.expect("(")
            inner = Node("exists", (self.query(),), self.here.at)
            self.expect(")")
            return inner
        return self._comparison()

    def _comparison(self) -> Node:
        left, at = self._concatenation(), self.here.at
        if self.here.kind == "mark" and self.here.text in ("=", "<>", "<", ">", "<=", ">="):
            mark = self.next().text
            if self.here.text in ("ALL", "ANY", "SOME"):
                raise not_taught("comparisons with ANY and ALL")
            return Node("compare", (mark, left, self._concatenation()), at)
        if self.takes("IS"):
            negated = self.takes("NOT")
            for word in ("NAN", "INFINITE"):
                if self.takes(word):
                    return self._not(negated, Node("is", (word, left), at))
            self.expect("NULL")
            return self._not(negated, Node("is", ("NULL", left), at))
        negated = self.takes("NOT")
        if self.takes("BETWEEN"):
            low = self._concatenation()
            self.expect("AND")
            return self._not(negated, Node("between", (left, low, self._concatenation()), at))
        if self.takes("IN"):
            self.expect("(")
            inner = self.query() if self.sees("SELECT") or self.sees("WITH") else self.expressions()
            self.expect(")")
            return self._not(negated, Node("in", (left, inner), at))
        if self.takes("LIKE"):
            pattern = self._concatenation()
            escape = self._concatenation() if self.takes("ESCAPE") else None
            return self._not(negated, Node("like", (left, pattern, escape), at))
        if negated:
            raise OracleError(936, position=at)
        return left

    def _not(self, negated: bool, node: Node) -> Node:
        return Node("not", (node,), node.at) if negated else node

    def _concatenation(self) -> Node:
        left = self._sum()
        while self.sees("||"):
            left = Node("concat", (left, self._after(self._sum)), self.here.at)
        return left

    def _sum(self) -> Node:
        left = self._product()
        while self.sees("+") or self.sees("-"):
            mark = self.here
            left = Node("arithmetic", (mark.text, left, self._after(self._product)), mark.at)
        return left

    def _product(self) -> Node:
        left = self._unary()
        while self.sees("*") or self.sees("/"):
            mark = self.here
            left = Node("arithmetic", (mark.text, left, self._after(self._unary)), mark.at)
        return left

    def _unary(self) -> Node:
        if self.sees("-"):
            return Node("minus", (self._after(self._unary),), self.here.at)
        if self.takes("+"):
            return self._unary()
        node = self._primary()
        while self.takes("AT", "TIME", "ZONE"):
            node = Node("at zone", (node, self._primary()), self.here.at)
        return node

    def _primary(self) -> Node:
        token = self.here
        if token.kind in ("string", "nstring", "number", "binary", "bind"):
            self.next()
            return Node(token.kind, (token.text,), token.at)
        if self.takes("("):
            if self.sees("SELECT") or self.sees("WITH"):
                inner = Node("scalar", (self.query(),), token.at)
            else:
                several = self.expressions()
                inner = several[0] if len(several) == 1 else Node("tuple", tuple(several), token.at)
            self.expect(")")
            return inner
        if self.takes("NULL"):
            return Node("null", (), token.at)
        if self.takes("CASE"):
            return self._case(token.at)
        if token.text in ("DATE", "TIMESTAMP") and token.kind == "word" and self.ahead().kind == "string":
            self.next()
            return Node("moment", (token.text, self.text()), token.at)
        if self.sees("INTERVAL") and self.ahead().kind == "string":
            return self._interval()
        if token.kind in ("word", "quoted"):
            return self._named()
        raise OracleError(936, position=token.at)

    def _case(self, at: int) -> Node:
        subject = None if self.sees("WHEN") else self.expression()
        branches = []
        while self.takes("WHEN"):
            condition = self.expression()
            self.expect("THEN")
            branches.append((condition, self.expression()))
        otherwise = self.expression() if self.takes("ELSE") else None
        self.expect("END")
        return Node("case", (subject, tuple(branches), otherwise), at)

    def _interval(self) -> Node:
        at = self.next().at
        value, unit = self.text(), self.identifier()
        digits = self.whole() if self.takes("(") else None
        if digits is not None:
            self.expect(")")
        last = self.identifier() if self.takes("TO") else unit
        if last == "SECOND" and self.takes("("):
            self.whole()
            self.expect(")")
        return Node("interval", (value, unit, last), at)

    def _named(self) -> Node:
        token = self.here
        if token.kind == "word" and self.ahead().text == "(" and token.text in ("CAST", "EXTRACT"):
            self.next(), self.next()
            return self._cast(token.at) if token.text == "CAST" else self._extract(token.at)
        if token.kind == "word" and self.ahead().text == "(" and token.text in ("XMLSERIALIZE", "JSON_SERIALIZE"):
            self.next(), self.next()
            return self._serialized(token.text, token.at)
        parts = [self.identifier()]
        while self.takes("."):
            if self.takes("*"):
                return Node("star", (parts[-1],), token.at)
            parts.append(self.identifier())
        if self.takes("("):
            return self._call(".".join(parts), token.at)
        if len(parts) > 3:
            raise OracleError(904, ".".join(parts), position=token.at)
        return Node("name", tuple(parts), token.at)

    def _cast(self, at: int) -> Node:
        inner = self.expression()
        self.expect("AS")
        kind = self.type_words()
        self.expect(")")
        return Node("cast", (inner, kind), at)

    def _serialized(self, name: str, at: int) -> Node:
        self.takes("CONTENT")
        inner = self.expression()
        self.expect("AS" if name == "XMLSERIALIZE" else "RETURNING", "CLOB")
        self.expect(")")
        return Node("call", (name, (inner,), False, None), at)

    def _extract(self, at: int) -> Node:
        unit = self.identifier()
        self.expect("FROM")
        inner = self.expression()
        self.expect(")")
        return Node("extract", (unit, inner), at)

    def _call(self, name: str, at: int) -> Node:
        distinct = False
        arguments: list[Node] = []
        if self.takes("*"):
            arguments = [Node("all rows", (), at)]
            self.expect(")")
        elif not self.takes(")"):
            distinct = self.takes("DISTINCT")
            arguments = self.expressions()
            self.expect(")")
        window = None
        if self.takes("OVER"):
            self.expect("(")
            partition = self.expressions() if self.takes("PARTITION", "BY") else []
            order = self.order_by()
            self.expect(")")
            window = (tuple(partition), order)
        if self.sees("WITHIN") or self.sees("KEEP") or self.sees("FILTER"):
            raise not_taught(f"{self.here.text} after functions")
        return Node("call", (name, tuple(arguments), distinct, window), at)

    def type_words(self) -> tuple[str, int | None, int | None, bool]:
        """A type's words with its two sizes, and whether its length is in characters."""
        words = self.identifier()
        if words in ("TIMESTAMP", "INTERVAL"):
            return self._moment_type(words)
        for more in ("RAW", "PRECISION"):
            words += f" {more}" if self.takes(more) else ""
        first = second = None
        by_char = False
        if self.takes("("):
            first = None if self.takes("*") else self.whole()
            by_char = self.takes("CHAR")
            self.takes("BYTE")
            if self.takes(","):
                sign = -1 if self.takes("-") else 1
                second = sign * self.whole()
                first = 38 if first is None else first
            self.expect(")")
        return words, first, second, by_char

    def _moment_type(self, words: str) -> tuple[str, int | None, int | None, bool]:
        if words == "TIMESTAMP":
            size = self._size(6)
            if self.takes("WITH"):
                local = self.takes("LOCAL")
                self.expect("TIME", "ZONE")
                words += " WITH LOCAL TIME ZONE" if local else " WITH TIME ZONE"
            return words, None, size, False
        if self.takes("YEAR"):
            digits = self._size(2)
            self.expect("TO", "MONTH")
            return "INTERVAL YEAR TO MONTH", digits, None, False
        self.expect("DAY")
        digits = self._size(2)
        self.expect("TO", "SECOND")
        return "INTERVAL DAY TO SECOND", digits, self._size(6), False

    def _size(self, default: int) -> int:
        if not self.takes("("):
            return default
        size = self.whole()
        self.expect(")")
        return size

    # Queries.

    def query(self) -> Node:
        """With its common tables, order, limit and locks."""
        at = self.here.at
        common = []
        if self.takes("WITH"):
            while True:
                name = self.identifier()
                columns = self.names() if self.sees("(") else []
                self.expect("AS", "(")
                common.append((name, columns, self.query()))
                self.expect(")")
                if not self.takes(","):
                    break
        body = self._set_member()
        while self.here.text in ("UNION", "MINUS", "INTERSECT") and self.here.kind == "word":
            word = self.next().text
            every = word == "UNION" and self.takes("ALL")
            body = Node("set", (word + (" ALL" if every else ""), body, self._set_member()), at)
        order = self.order_by()
        offset = limit = None
        if self.takes("OFFSET"):
            offset = self._unary()
            if not self.takes("ROWS"):
                self.expect("ROW")
        if self.takes("FETCH"):
            if not self.takes("FIRST"):
                self.expect("NEXT")
            limit = self._unary() if not self.sees("ROW") and not self.sees("ROWS") else Node("number", ("1",), at)
            if not self.takes("ROWS"):
                self.expect("ROW")
            self.expect("ONLY")
        return Node("query", (tuple(common), body, order, offset, limit, self._locks()), at)

    def _locks(self) -> tuple[str, int] | None:
        if not self.takes("FOR", "UPDATE"):
            return None
        if self.sees("OF"):
            raise not_taught("FOR UPDATE OF")
        if self.takes("SKIP", "LOCKED"):
            return ("SKIP LOCKED", 0)
        if self.takes("NOWAIT"):
            return ("WAIT", 0)
        return ("WAIT", self.whole() if self.takes("WAIT") else -1)

    def _set_member(self) -> Node:
        if self.takes("("):
            inner = self.query()
            self.expect(")")
            return inner
        return self._select()

    def _select(self) -> Node:
        at = self.here.at
        self.expect("SELECT", code=928 if self.here.kind == "end" else 933)
        distinct = self.takes("DISTINCT") or self.takes("UNIQUE")
        self.takes("ALL")
        items = [self._item()]
        while self.takes(","):
            items.append(self._item())
        self.expect("FROM", code=923)
        tables = [self._joined()]
        while self.takes(","):
            tables.append(self._joined())
        where = self.expression() if self.takes("WHERE") else None
        if self.sees("CONNECT") or self.sees("START"):
            raise not_taught("CONNECT BY")
        groups = self._groups() if self.takes("GROUP", "BY") else []
        having = self.expression() if self.takes("HAVING") else None
        return Node("select", (distinct, tuple(items), tuple(tables), where, tuple(groups), having), at)

    def _groups(self) -> list[Node]:
        at = self.here.at
        if not self.takes("GROUPING", "SETS"):
            return self.expressions()
        self.expect("(")
        sets: list[tuple[Node, ...]] = []
        while True:
            self.expect("(")
            sets.append(tuple(self.expressions()))
            self.expect(")")
            if not self.takes(","):
                break
        self.expect(")")
        return [Node("grouping sets", tuple(sets), at)]

    def _item(self) -> tuple[Node, str | None, str]:
        start = self.here.at
        if self.takes("*"):
            return Node("star", (None,), start), None, "*"
        node = self.expression()
        text = "".join(self.statement[start : self.here.at].split())
        alias = None
        if self.takes("AS") or self.here.kind == "quoted" or (self.here.kind == "word" and self._is_alias()):
            alias = self.identifier()
        return node, alias, text

    def _is_alias(self) -> bool:
        return self.here.text not in _AFTER_TABLE

    def _joined(self) -> Node:
        left = self._table()
        while True:
            at = self.here.at
            if self.takes("CROSS"):
                self.expect("JOIN")
                left = Node("join", ("CROSS", left, self._table(), None), at)
                continue
            side = "INNER"
            if self.here.text in ("LEFT", "RIGHT", "FULL") and self.here.kind == "word":
                side = self.next().text
                self.takes("OUTER")
                self.expect("JOIN")
            elif self.takes("INNER"):
                self.expect("JOIN")
            elif not self.takes("JOIN"):
                return left
            right = self._table()
            self.expect("ON")
            left = Node("join", (side, left, right, self.expression()), at)

    def _table(self) -> Node:
        at = self.here.at
        if self.takes("("):
            inner = self.query()
            self.expect(")")
            return Node("derived", (inner, self._alias()), at)
        schema, name = self.name()
        partition = None
        if self.takes("PARTITION"):
            (partition,) = self.names()
        sample = None
        if self.takes("SAMPLE"):
            by_block = self.takes("BLOCK")
            self.expect("(")
            share = self.expression()
            self.expect(")")
            seed = None
            if self.takes("SEED"):
                self.expect("(")
                seed = self.expression()
                self.expect(")")
            sample = (by_block, share, seed)
        past = None
        if self.takes("AS", "OF"):
            kind = self.next().text
            if kind not in ("SCN", "TIMESTAMP"):
                raise OracleError(933, position=at)
            past = (kind, self._sum())
        return Node("table", (schema, name, partition, sample, past, self._alias()), at)

    def _alias(self) -> str | None:
        if self.here.kind == "quoted" or (self.here.kind == "word" and self.here.text not in _AFTER_TABLE):
            return self.identifier()
        return None

    def order_by(self) -> tuple[tuple[Node, bool, bool], ...]:
        """Each with whether it is descending, and whether nulls stand first."""
        if not self.takes("ORDER", "BY"):
            return ()
        found = []
        while True:
            node = self.expression()
            descending = self.takes("DESC")
            if not descending:
                self.takes("ASC")
            # Oracle holds null to be larger than any value.
            first = descending
            if self.takes("NULLS"):
                first = self.takes("FIRST")
                if not first:
                    self.expect("LAST")
            found.append((node, descending, first))
            if not self.takes(","):
                return tuple(found)
