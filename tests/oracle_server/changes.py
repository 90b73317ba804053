"""INSERT, UPDATE, DELETE and MERGE: new values are staged, checked as a whole, and then put in as versions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import duckdb
import pyarrow as pa
from tests.oracle_server.assignment import assigned
from tests.oracle_server.catalog import ColumnDef, Constraint, Table, rowid_expression
from tests.oracle_server.compiler import Compiled, Compiler
from tests.oracle_server.errors import OracleError, not_taught
from tests.oracle_server.expressions import Scope, Value, alike, null_of, quoted
from tests.oracle_server.parser import Node, Parser
from tests.oracle_server.session_state import SessionState
from tests.oracle_server.store import ALIVE, BORN, DIED, RID, STATEMENT_BITS
from tests.oracle_server.types import ROWID

_AT = '"at#"'


class Wait(Exception):
    """Another transaction holds what is needed."""

    def __init__(self, other: int) -> None:
        self.other = other


@dataclass(slots=True)
class Done:
    """What a change did: rows, the last one's ROWID, and values that RETURNING asked for (rows of columns)."""

    rows: int = 0
    rid: int = 0
    returned: list[tuple[Any, ...]] = field(default_factory=list)
    returned_types: list[Value] = field(default_factory=list)
    iterations: int = 1


@dataclass(slots=True)
class _Staged:
    """Columns to be put in, each with its SQL over the staging table and the condition under which it does not fit."""

    column: ColumnDef
    sql: str
    problem: str | None


class Changes:
    """Carries out one changing statement for a session."""

    def __init__(self, state: SessionState, is_cancelled: Callable[[], bool] = lambda: False) -> None:
        self.state = state
        self.store = state.store
        self._is_cancelled = is_cancelled

    def run(self, statement: str, relation: pa.Table | None = None) -> Done:
        """One statement. `relation` holds the binds of all its executions as columns, for INSERT ... VALUES only."""
        parser = Parser(statement)
        steps = {"INSERT": self._insert, "UPDATE": self._update, "DELETE": self._delete, "MERGE": self._merge}
        step = steps[parser.next().text]
        began = self.state.transaction
        with self.store.latch:
            self.state.transaction = transaction = self.store.begin(began)
            while True:
                try:
                    return step(parser, relation)
                except Wait as wait:
                    self.store.wait_for(wait.other, transaction, is_cancelled=self._is_cancelled)
                    parser = Parser(statement)
                    parser.next()

    def lock(self, query: Node, compiler: Compiler) -> list[int] | None:
        """Lock the rows of SELECT ... FOR UPDATE. With SKIP LOCKED: the ROWIDs that could be locked."""
        body, (mode, seconds) = query.parts[1], query.parts[5]
        if body.kind != "select" or len(body.parts[2]) != 1 or body.parts[2][0].kind != "table" or query.parts[4]:
            raise OracleError(2014, detail="cannot select FOR UPDATE from view with DISTINCT, GROUP BY, etc.")
        with self.store.latch:
            self.state.transaction = transaction = self.store.begin(self.state.transaction)
            while True:
                compiler.scn = self.store.scn
                table, rows = self._targets(body.parts[2][0], body.parts[3], compiler)
                keeper = self.store.table_holder(table, transaction)
                held = [(rid, self.store.holder(table, rid, died, transaction)) for rid, died in rows]
                if mode == "SKIP LOCKED":
                    free = [rid for rid, holder in held if holder is None]
                    self.store.lock(table, free, transaction)
                    return free
                busy = next((holder for _, holder in held if holder is not None), keeper)
                if busy is None:
                    self.store.lock(table, [rid for rid, _ in held], transaction)
                    return None
                if seconds == 0:
                    raise OracleError(54)
                try:
                    self.store.wait_for(busy, transaction, seconds=seconds, is_cancelled=self._is_cancelled)
                except OracleError as error:
                    raise (OracleError(30006) if error.code == 54 else error) from error

    def _targets(self, source: Node, where: Node | None, compiler: Compiler) -> tuple[Table, list[tuple[int, int]]]:
        schema, name, partition, sample, past, alias = source.parts
        if partition or sample or past:
            raise not_taught("changes of parts of a table")
        table = self.store.catalog.table(schema or self.state.schema, name, self.state.user)
        scope = Scope()
        place = compiler.table(table, alias or name, scope)
        condition = f" WHERE {compiler.condition(where, scope)}" if where else ""
        rids = f"SELECT {quoted(alias or name)}.{RID} FROM {place}{condition}"
        visible = self.store.visible(compiler.scn, self.state.transaction)
        sql = f"SELECT {RID}, {DIED} FROM {table.stored} WHERE {visible} AND {RID} IN ({rids})"
        return table, self.store.cursor().execute(sql).fetchall()

    # INSERT.

    def _insert(self, parser: Parser, relation: pa.Table | None) -> Done:
        parser.expect("INTO")
        owner, name = parser.name()
        table = self.store.catalog.table(owner or self.state.schema, name, self.state.user)
        self._require("INSERT", table)
        names = parser.names() if parser.sees("(") and not parser.sees("(", "SELECT") else None
        names = names or [one.name for one in table.columns]
        compiler = Compiler(self.state)
        if parser.takes("VALUES"):
            parser.expect("(")
            values: list[Node | None] = []
            while True:
                values.append(None if parser.takes("DEFAULT") else parser.expression())
                if not parser.takes(","):
                    break
            parser.expect(")")
            returning = self._returning(parser)
            compiled_values = [None if one is None else compiler.value(one, Scope()) for one in values]
            source = "binds" if relation is not None else f"(SELECT 0 AS {_AT})"
            return self._put(table, names, compiled_values, source, relation=relation, returning=returning)
        compiled = compiler.query(parser.query())
        parser.finish()
        return self.insert_compiled(table, names, compiled)

    def insert_compiled(self, table: Table, names: list[str], compiled: Compiled) -> Done:
        """INSERT ... SELECT."""
        if self.state.transaction is None:
            self.state.transaction = self.store.begin(None)
        values: list[Value | None] = [
            Value(f'q."c{at}"', one.value.type, one.value.form) for at, one in enumerate(compiled.outputs)
        ]
        inner = ", ".join(f'"c{at}"' for at in range(len(values)))
        source = f"(SELECT *, row_number() OVER () - 1 AS {_AT} FROM ({compiled.sql}) AS i({inner})) AS q"
        return self._put(table, names, values, source)

    def _put(
        self,
        table: Table,
        names: list[str],
        values: list[Value | None],
        source: str,
        *,
        relation: pa.Table | None = None,
        returning: list[Node] | None = None,
    ) -> Done:
        if len(names) != len(values):
            raise OracleError(913 if len(values) > len(names) else 947)
        given = dict(zip(names, values, strict=True))
        for name in given:
            column = table.column(name)
            if column is None:
                raise OracleError(904, f'"{name}"')
            if column.identity == "ALWAYS" and given[name] is not None:
                raise OracleError(32795)
        staged = [self._column_value(one, given) for one in table.columns]

        def work(writer: duckdb.DuckDBPyConnection) -> Done:
            if relation is not None:
                writer.register("binds", relation)
            try:
                self._stage(writer, staged, source)
            finally:
                if relation is not None:
                    writer.unregister("binds")
            count = writer.execute("SELECT count(*) FROM stage").fetchall()[0][0]
            self._number(writer, table, count)
            self._validate(writer, table, {one.name for one in table.columns})
            self._assign_rowids(writer, table)
            columns = ", ".join(quoted(one.name) for one in table.columns)
            mark = self._transaction_mark(table)
            writer.execute(
                f"INSERT INTO {table.stored} SELECT {columns}, {RID}, {mark}, {ALIVE} FROM stage ORDER BY {_AT}"
            )
            return self._answer(writer, table, count, returning)

        return self._written(work)

    def _column_value(self, column: ColumnDef, given: dict[str, Value | None]) -> _Staged:
        value = given.get(column.name)
        if column.identity and (value is None or (value.is_null and column.on_null)):
            return _Staged(column, f"CAST(NULL AS {column.type.stored})", None)
        if value is None or (value.is_null and column.on_null):
            value = null_of(column.type)
            if column.default is not None:
                value = Compiler(self.state).value(column.default, Scope())
        sql, problem = assigned(value, column.type, self.state)
        return _Staged(column, sql, problem)

    def _stage(self, writer: duckdb.DuckDBPyConnection, staged: list[_Staged], source: str) -> None:
        columns = ", ".join(f"{one.sql} AS {quoted(one.column.name)}" for one in staged)
        problems = [f"WHEN {one.problem} THEN {at}" for at, one in enumerate(staged) if one.problem]
        check = f"CASE {' '.join(problems)} ELSE -1 END" if problems else "-1"
        writer.execute(
            f'CREATE OR REPLACE TEMP TABLE stage AS SELECT {columns}, {check} AS "bad#", {_AT} FROM {source}'
        )
        bad = writer.execute(f'SELECT {_AT}, "bad#" FROM stage WHERE "bad#" >= 0 ORDER BY 1 LIMIT 1').fetchall()
        if bad:
            column = staged[bad[0][1]].column
            if column.type.is_number:
                raise OracleError(1438)
            raise OracleError(12899, f'"{column.name}"', "more", column.type.length)

    def _number(self, writer: duckdb.DuckDBPyConnection, table: Table, count: int) -> None:
        """Give identity columns their numbers."""
        for column in table.columns:
            if column.identity:
                number = f"CAST({table.next_identity} + r AS VARCHAR)"
                kind = column.type.stored
                made = f"ora_num({number})" if kind == "BLOB" else f"CAST({number} AS {kind})"
                ranks = f"SELECT {_AT} AS a, row_number() OVER (ORDER BY {_AT}) - 1 AS r FROM stage"
                writer.execute(
                    f"UPDATE stage SET {quoted(column.name)} = {made} FROM ({ranks}) AS n"
                    f" WHERE stage.{_AT} = n.a AND {quoted(column.name)} IS NULL"
                )
                table.next_identity += count

    def _assign_rowids(self, writer: duckdb.DuckDBPyConnection, table: Table) -> None:
        writer.execute(f"ALTER TABLE stage ADD COLUMN {RID} BIGINT")
        previous = "FALSE"
        for part in table.parts:
            mine = f"NOT ({previous})"
            if table.partitioned_by is not None and part.below is not None:
                column = table.column(table.partitioned_by)
                if column is None:
                    raise OracleError(904, table.partitioned_by)
                bound = Compiler(self.state).value(part.below, Scope())
                a, b = alike(Value(quoted(column.name), column.type), bound)
                mine = f"coalesce({a} < {b}, FALSE) AND {mine}"
                previous += f" OR coalesce({a} < {b}, FALSE)"
            else:
                previous = "TRUE"
            ranks = f"SELECT {_AT} AS a, row_number() OVER (ORDER BY {_AT}) - 1 AS r FROM stage WHERE {mine}"
            rid = rowid_expression(part.data_object_id, part.next_row, "n.r")
            done = writer.execute(f"UPDATE stage SET {RID} = {rid} FROM ({ranks}) AS n WHERE stage.{_AT} = n.a")
            part.next_row += done.fetchall()[0][0]
        if writer.execute(f"SELECT 1 FROM stage WHERE {RID} IS NULL LIMIT 1").fetchall():
            raise OracleError(14400, detail="inserted partition key does not map to any partition")

    # UPDATE, DELETE, MERGE.

    def _update(self, parser: Parser, relation: pa.Table | None) -> Done:
        owner, name = parser.name()
        source = Node("table", (owner, name, None, None, None, None if parser.sees("SET") else parser.identifier()))
        parser.expect("SET")
        changes: dict[str, Node | None] = {}
        while True:
            column = parser.identifier()
            if parser.takes("."):
                column = parser.identifier()
            parser.expect("=")
            changes[column] = None if parser.takes("DEFAULT") else parser.expression()
            if not parser.takes(","):
                break
        where = parser.expression() if parser.takes("WHERE") else None
        returning = self._returning(parser)
        return self._replace(source, changes, where, returning)

    def _replace(
        self, source: Node, changes: dict[str, Node | None], where: Node | None, returning: list[Node] | None
    ) -> Done:
        compiler = Compiler(self.state)
        compiler.scn = self.store.scn
        table, rows = self._held(source, where, compiler, "UPDATE")
        alias = source.parts[5] or source.parts[1]
        scope = Scope()
        place = compiler.table(table, alias, scope)
        staged = []
        for name in changes:
            if table.column(name) is None:
                raise OracleError(904, f'"{name}"')
        for column in table.columns:
            here = f"{quoted(alias)}.{quoted(column.name)}"
            if column.name not in changes:
                staged.append(_Staged(column, here, None))
                continue
            if column.identity == "ALWAYS":
                raise OracleError(32796, detail="cannot update a generated always identity column")
            node = changes[column.name] or column.default
            value = null_of(column.type) if node is None else compiler.value(node, scope)
            sql, problem = assigned(value, column.type, self.state)
            staged.append(_Staged(column, sql, problem))

        def work(writer: duckdb.DuckDBPyConnection) -> Done:
            self._pick(writer, rows)
            inner = f"{place} JOIN picked ON {quoted(alias)}.{RID} = picked.rid"
            rid = _Staged(ColumnDef(name="rid#", type=ROWID), f"{quoted(alias)}.{RID}", None)
            at = f"(SELECT *, picked.rid AS {_AT} FROM {inner}) AS {quoted(alias)}"
            self._stage(writer, [*staged, rid], at)
            self._end_versions(writer, table)
            self._validate(writer, table, set(changes), code=1407)
            columns = ", ".join(quoted(one.name) for one in table.columns)
            mark = self._transaction_mark(table)
            writer.execute(f"INSERT INTO {table.stored} SELECT {columns}, {RID}, {mark}, {ALIVE} FROM stage")
            self._check_parents_left(writer, table, set(changes))
            return self._answer(writer, table, len(rows), returning)

        if not rows:
            return Done(returned_types=self._returned_types(table, returning))
        return self._written(work)

    def _delete(self, parser: Parser, relation: pa.Table | None) -> Done:
        parser.takes("FROM")
        owner, name = parser.name()
        alias = None if parser.here.text in ("WHERE", "RETURNING", "") else parser.identifier()
        source = Node("table", (owner, name, None, None, None, alias))
        where = parser.expression() if parser.takes("WHERE") else None
        returning = self._returning(parser)
        compiler = Compiler(self.state)
        compiler.scn = self.store.scn
        table, rows = self._held(source, where, compiler, "DELETE")

        def work(writer: duckdb.DuckDBPyConnection) -> Done:
            self._pick(writer, rows)
            columns = ", ".join(f"t.{quoted(one.name)}" for one in table.columns)
            visible = self.store.visible(compiler.scn, self.state.transaction)
            writer.execute(
                f"CREATE OR REPLACE TEMP TABLE stage AS SELECT {columns}, t.{RID}, t.{RID} AS {_AT}"
                f" FROM {table.stored} AS t JOIN picked ON t.{RID} = picked.rid WHERE {visible}"
            )
            self._end_versions(writer, table)
            self._check_parents_left(writer, table, {one.name for one in table.columns})
            return self._answer(writer, table, len(rows), returning)

        if not rows:
            return Done(returned_types=self._returned_types(table, returning))
        return self._written(work)

    def _held(self, source: Node, where: Node | None, compiler: Compiler, privilege: str) -> tuple[Table, list[Any]]:
        table, rows = self._targets(source, where, compiler)
        self._require(privilege, table)
        transaction = self.state.transaction
        if transaction is None:
            raise OracleError(600, detail="a change outside a transaction")
        for rid, died in rows:
            holder = self.store.holder(table, rid, died, transaction)
            if holder is not None:
                raise Wait(holder)
        return table, rows

    def _merge(self, parser: Parser, relation: pa.Table | None) -> Done:
        raise not_taught("MERGE")

    def _pick(self, writer: duckdb.DuckDBPyConnection, rows: list[Any]) -> None:
        picked = pa.table({"rid": pa.array([rid for rid, _ in rows], pa.int64())})
        writer.register("given", picked)
        writer.execute("CREATE OR REPLACE TEMP TABLE picked AS SELECT rid FROM given")
        writer.unregister("given")

    def _end_versions(self, writer: duckdb.DuckDBPyConnection, table: Table) -> None:
        mark = self._transaction_mark(table)
        current = f"{DIED} = {ALIVE} AND {RID} IN (SELECT rid FROM picked)"
        writer.execute(f"UPDATE {table.stored} SET {DIED} = {mark} WHERE {current}")

    # Checks.

    def _validate(self, writer: duckdb.DuckDBPyConnection, table: Table, changed: set[str], code: int = 1400) -> None:
        needed = [one for one in table.columns if not one.nullable and one.name in changed]
        if needed:
            nulls = ", ".join(f"count(*) - count({quoted(one.name)})" for one in needed)
            [found] = writer.execute(f"SELECT {nulls} FROM stage").fetchall()
            for column, missing in zip(needed, found, strict=True):
                if missing:
                    raise OracleError(code, f'"{table.owner}"."{table.name}"."{column.name}"')
        for key in _unique_keys(table):
            if changed & set(key.columns):
                self._check_unique(writer, table, key)
        for link in table.constraints:
            if link.kind == "R" and changed & set(link.columns):
                self._check_parent(writer, table, link)
            elif link.kind == "C" and link.check is not None:
                scope = Scope({table.name: {one.name: Value(quoted(one.name), one.type) for one in table.columns}})
                condition = Compiler(self.state).condition(link.check, scope)
                if writer.execute(f"SELECT 1 FROM stage WHERE NOT {condition} LIMIT 1").fetchall():
                    raise OracleError(2290, f"{table.owner}.{link.name}")

    def _check_unique(self, writer: duckdb.DuckDBPyConnection, table: Table, key: Constraint) -> None:
        names = [quoted(one) for one in key.columns]
        full = " AND ".join(f"s.{one} IS NOT NULL" for one in names)
        same = " AND ".join(f"s.{one} = t.{one}" for one in names)
        transaction = self.state.transaction
        if transaction is None:
            raise OracleError(600, detail="a change outside a transaction")
        twice = f"SELECT 1 FROM stage AS s WHERE {full} GROUP BY {', '.join(names)} HAVING count(*) > 1 LIMIT 1"
        if writer.execute(twice).fetchall():
            raise OracleError(1, f"{table.owner}.{key.name}")
        # A row that another transaction has deleted and not committed may come back, one that it inserted may go.
        found = writer.execute(
            f"SELECT t.{BORN}, t.{DIED} FROM stage AS s JOIN {table.stored} AS t ON {same}"
            f" WHERE t.{DIED} = {ALIVE} OR (t.{DIED} < 0 AND NOT {transaction.own(f't.{DIED}')})"
            " ORDER BY 1 DESC LIMIT 1"
        ).fetchall()
        for born, died in found:
            for mark in (born, died):
                other = (-mark) >> STATEMENT_BITS
                if mark < 0 and other != transaction.number:
                    raise Wait(other)
            raise OracleError(1, f"{table.owner}.{key.name}")

    def _check_parent(self, writer: duckdb.DuckDBPyConnection, table: Table, link: Constraint) -> None:
        parent = self.store.catalog.tables.get(link.parent or ("", ""))
        if parent is None:
            return
        pairs = list(zip(link.columns, link.parent_columns, strict=True))
        visible = self.store.visible(self.store.scn, self.state.transaction)
        for source in ("parents", "self") if parent is table else ("parents",):
            rows = f"(SELECT * FROM {parent.stored} WHERE {visible})" if source == "parents" else "stage"
            same = " AND ".join(f"s.{quoted(a)} = p.{quoted(b)}" for a, b in pairs)
            full = " AND ".join(f"s.{quoted(a)} IS NOT NULL" for a, _ in pairs)
            sql = (
                f"SELECT 1 FROM stage AS s WHERE {full} AND NOT EXISTS (SELECT 1 FROM {rows} AS p WHERE {same}) LIMIT 1"
            )
            if not writer.execute(sql).fetchall():
                return
        raise OracleError(2291, f"{table.owner}.{link.name}")

    def _check_parents_left(self, writer: duckdb.DuckDBPyConnection, table: Table, changed: set[str]) -> None:
        """No child may be left without a parent after keys went."""
        visible = self.store.visible(self.store.scn, self.state.transaction)
        for child, link in self.store.catalog.children(table):
            if not changed & set(link.parent_columns):
                continue
            pairs = list(zip(link.columns, link.parent_columns, strict=True))
            same = " AND ".join(f"c.{quoted(a)} = p.{quoted(b)}" for a, b in pairs)
            full = " AND ".join(f"c.{quoted(a)} IS NOT NULL" for a, _ in pairs)
            parents = f"(SELECT * FROM {table.stored} WHERE {visible})"
            orphan = f"NOT EXISTS (SELECT 1 FROM {parents} AS p WHERE {same})"
            sql = f"SELECT 1 FROM (SELECT * FROM {child.stored} WHERE {visible}) AS c WHERE {full} AND {orphan} LIMIT 1"
            if writer.execute(sql).fetchall():
                raise OracleError(2292, f"{child.owner}.{link.name}")

    # Parts of all.

    def _require(self, privilege: str, table: Table) -> None:
        if not self.state.user.may_on(privilege, table.owner, table.name):
            raise OracleError(1031)
        if self.state.transaction is not None:
            keeper = self.store.table_holder(table, self.state.transaction)
            if keeper is not None:
                raise Wait(keeper)

    def _transaction_mark(self, table: Table) -> int:
        if self.state.transaction is None:
            raise OracleError(600, detail="a change outside a transaction")
        self.state.transaction.tables[table.stored] = table
        return self.state.transaction.mark

    def _written(self, work: Callable[[duckdb.DuckDBPyConnection], Done]) -> Done:
        done: Done = self.store.write(work)
        return done

    def _returning(self, parser: Parser) -> list[Node] | None:
        if not parser.takes("RETURNING"):
            parser.finish()
            return None
        nodes = parser.expressions()
        parser.expect("INTO")
        binds = 1
        while parser.next().kind == "bind" and parser.takes(","):
            binds += 1
        if binds != len(nodes):
            raise OracleError(913)
        parser.finish()
        return nodes

    def _returned_types(self, table: Table, returning: list[Node] | None) -> list[Value]:
        columns = {one.name: Value(f"stage.{quoted(one.name)}", one.type) for one in table.columns}
        columns["ROWID"] = Value(f"stage.{RID}", ROWID)
        scope = Scope({table.name: columns})
        return [Compiler(self.state).value(one, scope) for one in returning or []]

    def _answer(
        self, writer: duckdb.DuckDBPyConnection, table: Table, count: int, returning: list[Node] | None
    ) -> Done:
        done = Done(rows=count, returned_types=self._returned_types(table, returning))
        last = writer.execute(f"SELECT {RID} FROM stage ORDER BY {_AT} DESC LIMIT 1").fetchall()
        done.rid = last[0][0] if last else 0
        if returning:
            columns = ", ".join(one.sql for one in done.returned_types)
            done.returned = writer.execute(f"SELECT {columns} FROM stage ORDER BY {_AT}").fetchall()
        return done


def _unique_keys(table: Table) -> list[Constraint]:
    keys = [one for one in table.constraints if one.kind in ("P", "U")]
    known = {one.columns for one in keys}
    extra = [one for one in table.indexes if one.unique and one.columns not in known]
    return keys + [Constraint(name=one.name, kind="U", columns=one.columns) for one in extra]
