"""Queries as DuckDB SQL. Every name is looked up, every type known; what is not taught is refused by name."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from tests.oracle_server import calls, views
from tests.oracle_server.catalog import Table
from tests.oracle_server.errors import OracleError, not_taught
from tests.oracle_server.expressions import (
    BOOLEAN,
    NULL_TYPE,
    Scope,
    Value,
    alike,
    arithmetic,
    as_text,
    coarse,
    common,
    interval_literal,
    moment_literal,
    null_of,
    number_literal,
    quoted,
    raw_number,
    text_literal,
    wall,
)
from tests.oracle_server.parser import Node
from tests.oracle_server.session_state import SessionState
from tests.oracle_server.store import RID
from tests.oracle_server.types import NUMBER, ROWID, ZONED, OraType, varchar


@dataclass(frozen=True, slots=True)
class Output:
    """A column of a result."""

    name: str
    value: Value
    nullable: bool = True


@dataclass(frozen=True, slots=True)
class Compiled:
    sql: str
    outputs: list[Output]


class Compiler:
    """Compiles the parts of one statement, which all see the same SCN."""

    def __init__(self, state: SessionState) -> None:
        self.state = state
        self.scn = state.scn()
        self._common: list[dict[str, Compiled]] = []

    # Expressions.

    def value(self, node: Node, scope: Scope) -> Value:
        """An expression that is no condition (before 23ai those have no value)."""
        value = self._any(node, scope)
        if value.type is BOOLEAN and node.kind != "name":
            raise OracleError(923 if not self.state.is_23ai else 3001, position=node.at)
        return value

    def condition(self, node: Node, scope: Scope) -> str:
        value = self._any(node, scope)
        if value.type.kind != "BOOLEAN":
            raise OracleError(920, detail="invalid relational operator", position=node.at)
        return value.sql

    def _any(self, node: Node, scope: Scope) -> Value:
        method = getattr(self, "_do_" + node.kind.replace(" ", "_"), None)
        if method is None:
            raise not_taught(f"{node.kind} here")
        value: Value = method(node, scope)
        return value

    def _do_or(self, node: Node, scope: Scope) -> Value:
        return Value("(" + " OR ".join(self.condition(one, scope) for one in node.parts) + ")", BOOLEAN)

    def _do_and(self, node: Node, scope: Scope) -> Value:
        return Value("(" + " AND ".join(self.condition(one, scope) for one in node.parts) + ")", BOOLEAN)

    def _do_not(self, node: Node, scope: Scope) -> Value:
        return Value(f"(NOT {self.condition(node.parts[0], scope)})", BOOLEAN)

    def _do_exists(self, node: Node, scope: Scope) -> Value:
        return Value(f"EXISTS ({self.query(node.parts[0], scope).sql})", BOOLEAN)

    def _do_compare(self, node: Node, scope: Scope) -> Value:
        mark, left, right = node.parts
        if left.kind == "tuple":
            raise not_taught("comparisons of lists")
        a, b = alike(self.value(left, scope), self.value(right, scope))
        return Value(f"({a} {mark} {b})", BOOLEAN)

    def _do_is(self, node: Node, scope: Scope) -> Value:
        word, inner = node.parts
        value = self.value(inner, scope)
        if word == "NULL":
            return Value(f"({value.sql} IS NULL)", BOOLEAN)
        if not value.type.is_binary_float:
            raise OracleError(932, "BINARY_DOUBLE", value.type.name)
        return Value(f"({'isnan' if word == 'NAN' else 'isinf'}({value.sql}))", BOOLEAN)

    def _do_between(self, node: Node, scope: Scope) -> Value:
        value, low, high = (self.value(one, scope) for one in node.parts)
        a, b = alike(value, low)
        c, d = alike(value, high)
        return Value(f"({a} >= {b} AND {c} <= {d})", BOOLEAN)

    def _do_in(self, node: Node, scope: Scope) -> Value:
        left, inner = node.parts
        if isinstance(inner, Node):
            return self._in_query(left, inner, scope)
        if left.kind == "tuple":
            return self._in_tuples(left, inner, scope)
        most = 65_535 if self.state.is_23ai else 1000
        if len(inner) > most:
            raise OracleError(1795, most, position=node.at)
        value = self.value(left, scope)
        sides = [alike(value, self.value(one, scope)) for one in inner]
        if len({a for a, _ in sides}) == 1:
            return Value(f"({sides[0][0]} IN ({', '.join(b for _, b in sides)}))", BOOLEAN)
        return Value("(" + " OR ".join(f"{a} = {b}" for a, b in sides) + ")", BOOLEAN)

    def _in_tuples(self, left: Node, rows: list[Node], scope: Scope) -> Value:
        columns = [self.value(one, scope) for one in left.parts]
        found = []
        for row in rows:
            if row.kind != "tuple" or len(row.parts) != len(columns):
                raise OracleError(920, detail="invalid relational operator", position=row.at)
            sides = [alike(a, self.value(b, scope)) for a, b in zip(columns, row.parts, strict=True)]
            found.append("(" + " AND ".join(f"{a} = {b}" for a, b in sides) + ")")
        return Value("(" + " OR ".join(found) + ")", BOOLEAN)

    def _in_query(self, left: Node, inner: Node, scope: Scope) -> Value:
        compiled = self.query(inner, scope)
        columns = [self.value(one, scope) for one in (left.parts if left.kind == "tuple" else (left,))]
        if len(columns) != len(compiled.outputs):
            raise OracleError(913, position=inner.at)
        sides = [
            alike(column, Value(f'q."c{at}"', output.value.type, output.value.form))
            for at, (column, output) in enumerate(zip(columns, compiled.outputs, strict=True))
        ]
        a, b = ", ".join(one for one, _ in sides), ", ".join(one for _, one in sides)
        names = ", ".join(f'"c{at}"' for at in range(len(columns)))
        return Value(f"(({a}) IN (SELECT {b} FROM ({compiled.sql}) AS q({names})))", BOOLEAN)

    def _do_like(self, node: Node, scope: Scope) -> Value:
        value, pattern, escape = node.parts
        sides = [as_text(self.value(one, scope)) for one in (value, pattern)]
        end = f" ESCAPE {as_text(self.value(escape, scope))}" if escape else ""
        return Value(f"({sides[0]} LIKE {sides[1]}{end})", BOOLEAN)

    def _do_concat(self, node: Node, scope: Scope) -> Value:
        parts = list(node.parts)
        while parts[0].kind == "concat":  # a chain of them is one, as DuckDB takes long over each level
            parts[:1] = parts[0].parts
        sides = [self.value(one, scope) for one in parts]
        texts = ", ".join(as_text(one) for one in sides)
        lobs = [one.type for one in sides if one.type.is_lob]
        length = sum(one.type.length if one.type.is_text else 40 for one in sides)
        return Value(f"nullif(concat({texts}), '')", lobs[0] if lobs else varchar(min(length, 4000)))

    def _do_arithmetic(self, node: Node, scope: Scope) -> Value:
        mark, left, right = node.parts
        return arithmetic(mark, self.value(left, scope), self.value(right, scope))

    def _do_minus(self, node: Node, scope: Scope) -> Value:
        value = self.value(node.parts[0], scope)
        if value.type.is_binary_float:
            return Value(f"(-{value.sql})", value.type)
        if value.type.is_number and value.stored.startswith("DECIMAL"):
            return Value(f"CAST(-({value.sql}) AS {value.stored})", NUMBER, value.stored)
        return arithmetic("-", number_literal(Decimal(0)), value)

    def _do_at_zone(self, node: Node, scope: Scope) -> Value:
        value, zone = node.parts
        inner = self.value(value, scope)
        if zone.kind != "string" or zone.parts[0] not in ("UTC", "+00:00") or inner.type.kind not in ZONED:
            raise not_taught("AT TIME ZONE with anything but UTC")
        return Value(f"(substr({inner.sql}, 1, 29) || '+0')", OraType(kind=ZONED[0], scale=inner.type.scale))

    def _do_string(self, node: Node, scope: Scope) -> Value:
        return text_literal(node.parts[0])

    def _do_nstring(self, node: Node, scope: Scope) -> Value:
        return text_literal(node.parts[0], OraType(kind="NCHAR", length=len(node.parts[0])))

    def _do_number(self, node: Node, scope: Scope) -> Value:
        return number_literal(Decimal(node.parts[0]))

    def _do_binary(self, node: Node, scope: Scope) -> Value:
        kind = "BINARY_DOUBLE" if node.parts[0][-1] in "dD" else "BINARY_FLOAT"
        return Value(f"CAST({node.parts[0][:-1]} AS {OraType(kind=kind).stored})", OraType(kind=kind))

    def _do_bind(self, node: Node, scope: Scope) -> Value:
        return self.state.bind(node.at)

    def _do_null(self, node: Node, scope: Scope) -> Value:
        return null_of(NULL_TYPE)

    def _do_moment(self, node: Node, scope: Scope) -> Value:
        return moment_literal(*node.parts)

    def _do_interval(self, node: Node, scope: Scope) -> Value:
        return interval_literal(node)

    def _do_scalar(self, node: Node, scope: Scope) -> Value:
        compiled = self.query(node.parts[0], scope)
        if len(compiled.outputs) != 1:
            raise OracleError(913, position=node.at)
        value = compiled.outputs[0].value
        return Value(f"({compiled.sql})", value.type, value.form)

    def _do_case(self, node: Node, scope: Scope) -> Value:
        subject, branches, otherwise = node.parts
        conditions = []
        for condition, _ in branches:
            if subject is None:
                conditions.append(self.condition(condition, scope))
            else:
                a, b = alike(self.value(subject, scope), self.value(condition, scope))
                conditions.append(f"{a} = {b}")
        results = [self.value(result, scope) for _, result in branches]
        results.append(self.value(otherwise, scope) if otherwise else null_of(NULL_TYPE))
        sqls, kind, form = common(results)
        whens = " ".join(f"WHEN {a} THEN {b}" for a, b in zip(conditions, sqls, strict=False))
        if form == "DECIMAL":
            form = calls.widest(results)
            return Value(f"CAST(CASE {whens} ELSE {sqls[-1]} END AS {form})", kind, form)
        return Value(f"(CASE {whens} ELSE {sqls[-1]} END)", kind, form)

    def _do_cast(self, node: Node, scope: Scope) -> Value:
        from tests.oracle_server.assignment import assigned
        from tests.oracle_server.definitions import type_of

        inner, words = node.parts
        kind = type_of(words, extended=self.state.store.extended_strings)
        value = self.value(inner, scope)
        if value.is_null:
            return null_of(kind)
        if kind.is_moment and not value.type.is_moment:
            raise not_taught("CAST of a text by the session's format")
        sql, problem = assigned(value, kind, self.state)
        if problem and kind.is_text:
            raise_ = "ORA-03001: unimplemented feature: this test server was not taught CAST to a shorter text"
            sql, problem = f"CASE WHEN {problem} THEN error('{raise_}') ELSE {sql} END", None
        if problem:
            code = 1438 if kind.is_number else 932
            sql = f"CASE WHEN {problem} THEN error('ORA-{code:05d}: value too large') ELSE {sql} END"
        return Value(sql, kind)

    def _do_extract(self, node: Node, scope: Scope) -> Value:
        unit, inner = node.parts
        value = self.value(inner, scope)
        if unit not in ("YEAR", "MONTH", "DAY", "HOUR", "MINUTE") or not value.type.is_moment:
            raise not_taught(f"EXTRACT({unit})")
        text = coarse(value) if value.type.kind not in ZONED else f"CAST(substr({value.sql}, 1, 26) AS TIMESTAMP)"
        return Value(f"CAST(extract({unit.lower()} FROM {text}) AS BIGINT)", NUMBER, "BIGINT")

    def _do_name(self, node: Node, scope: Scope) -> Value:
        parts = node.parts
        if len(parts) <= 2 and parts[-1] in ("NEXTVAL", "CURRVAL") and len(parts) == 2:
            return calls.next_value(self.state, parts)
        if parts[-1] == "ROWNUM" and len(parts) == 1:
            raise not_taught("ROWNUM other than `ROWNUM <= n` in WHERE")
        try:
            return scope.find(parts, node.at)
        except OracleError as error:
            if error.code != 904 or len(parts) > 2:
                raise
            known = calls.without_arguments(self.state, ".".join(parts))
            if known is None:
                raise
            return known

    def _do_call(self, node: Node, scope: Scope) -> Value:
        return calls.call(self, node, scope)

    def wall(self, value: Value) -> str:
        return wall(value, self.state.offset_minutes)

    # Queries.

    def query(self, node: Node, outer: Scope | None = None) -> Compiled:
        """A whole query; its outputs are named `c0`, `c1`, ... by position in what surrounds it."""
        commons, body, order, offset, limit, _ = node.parts
        self._common.append({})
        try:
            for name, columns, inner in commons:
                compiled = self.query(inner, outer)
                outputs = compiled.outputs
                if columns:
                    outputs = [Output(new, one.value) for new, one in zip(columns, outputs, strict=True)]
                self._common[-1][name] = Compiled(compiled.sql, outputs)
            if body.kind == "select":
                compiled = self._select(body, order, outer)
            else:
                compiled = self._set(body, outer) if body.kind == "set" else self.query(body, outer)
                compiled = Compiled(self._ordered_set(compiled, order), compiled.outputs)
        finally:
            self._common.pop()
        sql = compiled.sql
        if limit is not None or offset is not None:
            if any(one.value.type.kind in ("LONG", "LONG RAW") for one in compiled.outputs):
                raise OracleError(997)
            sql = f"SELECT * FROM ({sql})"
            for word, count in (("LIMIT", limit), ("OFFSET", offset)):
                if count is not None:
                    sql += f" {word} CAST({raw_as_bigint(self.value(count, Scope()))} AS BIGINT)"
        return Compiled(sql, compiled.outputs)

    def _set(self, node: Node, outer: Scope | None) -> Compiled:
        word, *members = node.parts
        sides = [
            self._set(one, outer)
            if one.kind == "set"
            else self._select(one, (), outer)
            if one.kind == "select"
            else self.query(one, outer)
            for one in members
        ]
        if len(sides[0].outputs) != len(sides[1].outputs):
            raise OracleError(1789, detail="query block has incorrect number of result columns")
        lists: list[list[str]] = [[], []]
        outputs = []
        for at, (a, b) in enumerate(zip(sides[0].outputs, sides[1].outputs, strict=True)):
            name = f'"c{at}"'
            ends = [Value(name, one.value.type, one.value.form, one.value.is_null) for one in (a, b)]
            sqls, kind, form = common(ends)
            if form == "DECIMAL":
                form = calls.widest(ends)
            lists[0].append(f"{sqls[0]} AS {name}")
            lists[1].append(f"{sqls[1]} AS {name}")
            outputs.append(Output(a.name, Value(name, kind, form)))
        words = {"MINUS": "EXCEPT"}.get(word, word)
        parts = [f"SELECT {', '.join(list_)} FROM ({one.sql})" for list_, one in zip(lists, sides, strict=True)]
        return Compiled(f"({parts[0]}) {words} ({parts[1]})", outputs)

    def _ordered_set(self, compiled: Compiled, order: Any) -> str:
        if not order:
            return compiled.sql
        names = {one.name: at for at, one in enumerate(compiled.outputs)}
        terms = []
        for node, descending, first in order:
            if node.kind == "number":
                at = int(node.parts[0]) - 1
            elif node.kind == "name" and node.parts[-1] in names:
                at = names[node.parts[-1]]
            else:
                raise not_taught("such an ORDER BY of a UNION")
            terms.append(_term(f'"c{at}"', descending, first))
        return f"SELECT * FROM ({compiled.sql}) ORDER BY {', '.join(terms)}"

    def _select(self, node: Node, order: Any, outer: Scope | None) -> Compiled:
        distinct, items, tables, where, groups, having = node.parts
        scope = Scope(outer=outer)
        sources = ", ".join(self._source(table, scope) for table in tables)
        conditions, limit = self._split_rownum(where)
        tail = f" FROM {sources}"
        if conditions:
            tail += " WHERE " + " AND ".join(self.condition(one, scope) for one in conditions)
        outputs = self._outputs(items, scope)
        if limit is not None:
            if groups or having or distinct or order:
                raise not_taught("ROWNUM beside GROUP BY, DISTINCT or ORDER BY; put the inner query in parentheses")
            tail += f" LIMIT {limit}"
        if groups:
            tail += " GROUP BY " + self._grouped(groups, scope)
        if having:
            tail += " HAVING " + self.condition(having, scope)
        if order:
            terms = [self._order_term(one, outputs, scope) for one in order]
            if distinct and not all(term.startswith(tuple(f"{one.value.sql} " for one in outputs)) for term in terms):
                raise OracleError(1791, detail="not a SELECTed expression")
            tail += " ORDER BY " + ", ".join(terms)
        columns = ", ".join(f'{one.value.sql} AS "c{at}"' for at, one in enumerate(outputs))
        return Compiled(f"SELECT {'DISTINCT ' if distinct else ''}{columns}{tail}", outputs)

    def _grouped(self, groups: Any, scope: Scope) -> str:
        if groups[0].kind == "grouping sets":
            sets = (", ".join(self._group_key(one, scope) for one in part) for part in groups[0].parts)
            return "GROUPING SETS (" + ", ".join(f"({one})" for one in sets) + ")"
        return ", ".join(self._group_key(one, scope) for one in groups)

    def _group_key(self, node: Node, scope: Scope) -> str:
        value = self.value(node, scope)
        if value.type.is_lob:
            raise OracleError(932, "-", value.type.name, position=node.at)
        return value.sql

    def _outputs(self, items: Any, scope: Scope) -> list[Output]:
        outputs = []
        for item, alias, text in items:
            if item.kind == "star":
                outputs += self._star(item, scope)
                continue
            value = self.value(item, scope)
            name = alias or (item.parts[-1] if item.kind == "name" else text.upper())
            outputs.append(Output(name, value))
        if not outputs:
            raise OracleError(936)
        return outputs

    def _star(self, item: Node, scope: Scope) -> list[Output]:
        wanted = [item.parts[0]] if item.parts[0] else list(scope.tables)
        if any(name not in scope.tables for name in wanted):
            raise OracleError(904, item.parts[0], position=item.at)
        columns = [pair for name in wanted for pair in scope.tables[name].items()]
        return [Output(name, value) for name, value in columns if name not in ("ROWID", "ORA_ROWSCN")]

    def _order_term(self, term: Any, outputs: list[Output], scope: Scope) -> str:
        node, descending, first = term
        if node.kind == "number":
            at = int(node.parts[0])
            if not 1 <= at <= len(outputs):
                raise OracleError(1785, detail="ORDER BY item must be the number of a SELECT-list expression")
            return _term(outputs[at - 1].value.sql, descending, first)
        if node.kind == "name" and len(node.parts) == 1:
            named = [one for one in outputs if one.name == node.parts[0]]
            if named:
                return _term(named[0].value.sql, descending, first)
        return _term(self.value(node, scope).sql, descending, first)

    def _split_rownum(self, where: Node | None) -> tuple[list[Node], int | None]:
        """Conditions without `ROWNUM <= n`, and the number of rows that leaves."""
        if where is None:
            return [], None
        pending, conditions, limit = [where], [], None
        while pending:
            node = pending.pop(0)
            if node.kind == "and":
                pending = [*node.parts, *pending]
            elif node.kind == "compare" and node.parts[1] == Node("name", ("ROWNUM",), node.parts[1].at):
                mark, _, count = node.parts
                value = self.value(count, Scope())
                is_first = mark == "=" and count.kind == "number" and count.parts[0] == "1"  # no other equals any row's
                if mark not in ("<=", "<") and not is_first:
                    raise not_taught(f"ROWNUM {mark}")
                limit = f"greatest(CAST({raw_as_bigint(value)} AS BIGINT) - {1 if mark == '<' else 0}, 0)"
            else:
                conditions.append(node)
        return conditions, limit  # type: ignore[return-value]

    # Tables.

    def _source(self, node: Node, scope: Scope) -> str:
        if node.kind == "join":
            side, left, right, condition = node.parts
            both = f"{self._source(left, scope)} {side} JOIN {self._source(right, scope)}"
            return f"({both})" if condition is None else f"({both} ON {self.condition(condition, scope)})"
        if node.kind == "derived":
            inner, alias = node.parts
            return self._derived(self.query(inner, scope.outer), alias or f"derived#{node.at}", scope)
        schema, name, partition, sample, past, alias = node.parts
        if schema is None:
            for level in reversed(self._common):
                if name in level:
                    return self._derived(level[name], alias or name, scope)
        if name == "DUAL" and schema in (None, "SYS"):
            scope.tables[alias or name] = {"DUMMY": Value(f'{quoted(alias or name)}."c0"', varchar(1))}
            return f"(SELECT 'X' AS \"c0\") AS {quoted(alias or name)}"
        view = views.view(self.state, schema, name)
        if view is not None:
            return self._derived(Compiled(view.sql, [Output(n, v) for n, v in view.columns]), alias or name, scope)
        owner = schema or self.state.schema
        table = self.state.store.catalog.table(owner, name, self.state.user)
        if not any(self.state.user.may_on(one, owner, name) for one in ("SELECT", "READ")):
            raise OracleError(1031)
        return self.table(table, alias or name, scope, partition=partition, sample=sample, past=past)

    def _derived(self, compiled: Compiled, alias: str, scope: Scope) -> str:
        place = quoted(alias)
        if len({one.name for one in compiled.outputs}) < len(compiled.outputs):
            raise not_taught("several columns of one name in a subquery")
        scope.tables[alias] = {
            one.name: Value(f'{place}."c{at}"', one.value.type, one.value.form)
            for at, one in enumerate(compiled.outputs)
        }
        names = ", ".join(f'"c{at}"' for at in range(len(compiled.outputs)))
        return f"({compiled.sql}) AS {place}({names})"

    def table(
        self,
        table: Table,
        alias: str,
        scope: Scope,
        *,
        partition: str | None = None,
        sample: Any = None,
        past: Any = None,
    ) -> str:
        """A table at the statement's SCN, or at one of the past."""
        place = quoted(alias)
        visible = self.state.store.visible(self.scn, self.state.transaction)
        if past is not None:
            visible = self._past(table, past)
        elif self.scn < self.state.store.undo_floor:
            raise OracleError(1555)
        conditions = [visible]
        if partition is not None:
            conditions.append(f"({RID} >> 43 = {table.part(partition).data_object_id})")
        if sample is not None:
            conditions.append(self._sampled(sample))
        columns = {one.name: Value(f"{place}.{quoted(one.name)}", one.type) for one in table.columns}
        columns["ROWID"] = Value(f"{place}.{RID}", ROWID)
        scope.tables[alias] = columns
        names = ", ".join([quoted(one.name) for one in table.columns] + [RID])
        return f"(SELECT {names} FROM {table.stored} WHERE {' AND '.join(conditions)}) AS {place}"

    def _past(self, table: Table, past: Any) -> str:
        kind, node = past
        store = self.state.store
        if not self.state.user.may_on("FLASHBACK", table.owner, table.name):
            raise OracleError(1031)
        value = self.value(node, Scope())
        given = (
            store.cursor()
            .execute(f"SELECT {raw_as_bigint(value) if kind == 'SCN' else coarse(value)}")
            .fetchall()[0][0]
        )
        if given is None:
            raise OracleError(8181)
        scn = int(given) if kind == "SCN" else store.scn_at(given)
        store.check_past(scn, table)
        return store.visible(scn, None)

    def _sampled(self, sample: Any) -> str:
        by_block, share, seed = sample
        sqls = [raw_as_bigint(self.value(seed, Scope()))] if seed else [str(secrets.randbelow(10**9))]
        percent = self.value(share, Scope())
        what = f"({RID} >> 12)" if by_block else RID
        part = f"CAST({percent.sql} AS DOUBLE)" if not percent.is_raw else f"CAST(ora_plain({percent.sql}) AS DOUBLE)"
        return f"(hash({what}, CAST({sqls[0]} AS BIGINT)) % 1000000000 < {part} * 10000000)"


def raw_as_bigint(value: Value) -> str:
    """SQL of a number as a whole one."""
    if value.type.is_number and not value.is_raw:
        return value.sql
    return f"CAST(ora_plain(ora_trunc({raw_number(value)}, 0)) AS HUGEINT)"


def _term(sql: str, descending: bool, first: bool) -> str:
    return f"{sql} {'DESC' if descending else 'ASC'} NULLS {'FIRST' if first else 'LAST'}"
