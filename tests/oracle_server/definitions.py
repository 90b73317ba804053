"""Statements that define: tables, indexes, sequences, comments, grants. Each commits before and after itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.oracle_server.catalog import ColumnDef, Constraint, Index, Partition, Sequence, Table
from tests.oracle_server.compiler import Compiler
from tests.oracle_server.errors import OracleError, not_taught
from tests.oracle_server.expressions import quoted
from tests.oracle_server.parser import Parser
from tests.oracle_server.session_state import SessionState
from tests.oracle_server.store import ALIVE, BORN, DIED, RID
from tests.oracle_server.types import OraType
from tests.oracle_server.values import utc_now

_PLAIN = {
    "VARCHAR2": "VARCHAR2",
    "VARCHAR": "VARCHAR2",
    "NVARCHAR2": "NVARCHAR2",
    "CHAR": "CHAR",
    "NCHAR": "NCHAR",
    "RAW": "RAW",
    "DATE": "DATE",
    "CLOB": "CLOB",
    "NCLOB": "NCLOB",
    "BLOB": "BLOB",
    "LONG": "LONG",
    "LONG RAW": "LONG RAW",
    "ROWID": "ROWID",
    "BINARY_FLOAT": "BINARY_FLOAT",
    "BINARY_DOUBLE": "BINARY_DOUBLE",
    "XMLTYPE": "XMLTYPE",
    "JSON": "JSON",
}
# SQL Language Reference, "Oracle SQL Reserved Words": names only in quotes.
_RESERVED_WORDS = (
    "ACCESS ADD ALL ALTER AND ANY AS ASC AUDIT BETWEEN BY CHAR CHECK CLUSTER COLUMN COLUMN_VALUE COMMENT COMPRESS"
    " CONNECT CREATE CURRENT DATE DECIMAL DEFAULT DELETE DESC DISTINCT DROP ELSE EXCLUSIVE EXISTS FILE FLOAT FOR FROM"
    " GRANT GROUP HAVING IDENTIFIED IMMEDIATE IN INCREMENT INDEX INITIAL INSERT INTEGER INTERSECT INTO IS LEVEL LIKE"
    " LOCK LONG MAXEXTENTS MINUS MLSLABEL MODE MODIFY NESTED_TABLE_ID NOAUDIT NOCOMPRESS NOT NOWAIT NULL NUMBER OF"
    " OFFLINE ON ONLINE OPTION OR ORDER PCTFREE PRIOR PUBLIC RAW RENAME RESOURCE REVOKE ROW ROWID ROWNUM ROWS SELECT"
    " SESSION SET SHARE SIZE SMALLINT START SUCCESSFUL SYNONYM SYSDATE TABLE THEN TO TRIGGER UID UNION UNIQUE UPDATE"
    " USER VALIDATE VALUES VARCHAR VARCHAR2 VIEW WHENEVER WHERE WITH"
)
RESERVED = frozenset(_RESERVED_WORDS.split())
_INTEGERS = ("INTEGER", "INT", "SMALLINT")


def type_of(words: tuple[str, int | None, int | None, bool], *, extended: bool = False) -> OraType:
    """The type that was declared."""
    name, first, second, by_char = words
    if name in ("NUMBER", "DECIMAL", "NUMERIC", *_INTEGERS):
        if name in _INTEGERS or (name != "NUMBER" and first is None):
            first, second = 38, 0
        return OraType(kind="NUMBER", precision=first, scale=(second or 0) if first is not None else None)
    if name in ("FLOAT", "DOUBLE PRECISION", "REAL"):
        return OraType(kind="FLOAT", precision=first or (63 if name == "REAL" else 126))
    if name.startswith(("TIMESTAMP", "INTERVAL")):
        return OraType(kind=name, precision=first, scale=second)
    if name not in _PLAIN:
        raise not_taught(f"the type {name}")
    kind = _PLAIN[name]
    if kind in ("VARCHAR2", "NVARCHAR2", "RAW") and first is None:
        raise OracleError(906, detail="missing left parenthesis")
    length = first or (1 if kind in ("CHAR", "NCHAR") else 0)
    limits = {"CHAR": 2000, "NCHAR": 1000, "RAW": 2000, "VARCHAR2": 4000, "NVARCHAR2": 2000}
    if extended:
        limits |= {"RAW": 32767, "VARCHAR2": 32767, "NVARCHAR2": 16383}
    limit = limits.get(kind)
    if limit is not None and length > limit:
        raise OracleError(910, detail="specified length too long for its datatype")
    return OraType(kind=kind, length=length, by_char=by_char)


class Definitions:
    """Carries out one defining statement."""

    def __init__(self, state: SessionState, statement: str) -> None:
        self.state = state
        self.store = state.store
        self.catalog = state.store.catalog
        self.parser = Parser(statement)

    def run(self) -> None:
        parser = self.parser
        steps: list[tuple[tuple[str, ...], Callable[[], None]]] = [
            (("CREATE", "TABLE"), self._create_table),
            (("CREATE", "INDEX"), lambda: self._create_index(unique=False)),
            (("CREATE", "UNIQUE", "INDEX"), lambda: self._create_index(unique=True)),
            (("CREATE", "SEQUENCE"), self._create_sequence),
            (("DROP", "TABLE"), self._drop_table),
            (("DROP", "INDEX"), self._drop_index),
            (("DROP", "SEQUENCE"), self._drop_sequence),
            (("TRUNCATE", "TABLE"), self._truncate),
            (("COMMENT", "ON"), self._comment),
            (("ALTER", "TABLE"), self._alter_table),
            (("GRANT",), self._grant),
        ]
        for words, step in steps:
            if parser.takes(*words):
                with self.store.latch:
                    self.state.commit()
                    step()
                    parser.finish()
                    self.store.advance()
                return
        raise not_taught(f"{parser.here.text} {parser.ahead().text}")

    def _own(self) -> tuple[str, str]:
        schema, name = self.parser.name()
        owner = schema or self.state.schema
        if owner != self.state.user.name and not self.state.user.may("DBA"):
            raise OracleError(1031)
        return owner, name

    def _table(self) -> Table:
        owner, name = self._own()
        return self.catalog.table(owner, name, self.state.user)

    # Tables.

    def _create_table(self) -> None:
        owner, name = self._own()
        if not self.state.user.may("CREATE TABLE"):
            raise OracleError(1031)
        if (owner, name) in self.catalog.tables:
            raise OracleError(955)
        object_id = self.catalog.new_object()
        table = Table(owner=owner, name=name, columns=[], object_id=object_id, parts=[])
        compiled = None
        if self.parser.sees("(") and not self.parser.sees("AS"):
            self._columns(table)
        self._physical()
        if self.parser.takes("PARTITION", "BY"):
            self._partitions(table)
        else:
            table.parts = [Partition(name="", below=None, below_text="", data_object_id=object_id)]
        self._physical()
        if self.parser.takes("AS"):
            compiled = Compiler(self.state).query(self.parser.query())
            table.columns = [ColumnDef(name=one.name, type=_kept(one.value.type)) for one in compiled.outputs]
        if not table.columns:
            raise OracleError(902, detail="invalid datatype")
        self.parser.finish()
        self._make(table)
        if compiled is not None:
            from tests.oracle_server.changes import Changes

            Changes(self.state).insert_compiled(table, [one.name for one in table.columns], compiled)
            self.state.commit()

    def _make(self, table: Table) -> None:
        names = [one.name.upper() for one in table.columns]
        if len(set(names)) < len(names):
            raise OracleError(957, detail="duplicate column name")
        columns = ", ".join(f"{quoted(one.name)} {one.type.stored}" for one in table.columns)
        hidden = f"{RID} BIGINT, {BORN} BIGINT, {DIED} BIGINT"
        self.store.write(lambda writer: writer.execute(f"CREATE TABLE {table.stored} ({columns}, {hidden})"))
        table.created_scn = self.store.advance()
        self.catalog.tables[table.owner, table.name] = table

    def _columns(self, table: Table) -> None:
        parser = self.parser
        parser.expect("(")
        while True:
            if (
                parser.here.text in ("CONSTRAINT", "PRIMARY", "UNIQUE", "FOREIGN", "CHECK")
                and parser.here.kind == "word"
            ):
                self._table_constraint(table)
            else:
                table.columns.append(self._column(table))
            if not parser.takes(","):
                break
        parser.expect(")", code=907)
        for constraint in table.constraints:
            if constraint.kind == "P":
                for name in constraint.columns:
                    self._known(table, name).nullable = False

    def _known(self, table: Table, name: str) -> ColumnDef:
        column = table.column(name)
        if column is None:
            raise OracleError(904, f'"{name}"')
        return column

    def _column(self, table: Table) -> ColumnDef:
        parser = self.parser
        if parser.here.kind == "word" and parser.here.text in RESERVED:
            raise OracleError(904, parser.here.text, position=parser.here.at)
        column = ColumnDef(
            name=parser.identifier(), type=type_of(parser.type_words(), extended=self.store.extended_strings)
        )
        named = None
        while True:
            if parser.takes("DEFAULT"):
                column.on_null = parser.takes("ON", "NULL")
                column.nullable = column.nullable and not column.on_null
                start = parser.here.at
                column.default = parser.value()  # no condition: `DEFAULT 0 NOT NULL` ends before NOT
                column.default_text = parser.statement[start : parser.here.at].strip()
            elif parser.takes("GENERATED"):
                self._identity(column)
            elif parser.takes("CONSTRAINT"):
                named = parser.identifier()
                continue
            elif parser.takes("NOT", "NULL"):
                column.nullable = False
            elif parser.takes("NULL"):
                pass
            elif not self._column_constraint(table, column, named):
                return column
            named = None

    def _identity(self, column: ColumnDef) -> None:
        parser = self.parser
        if parser.takes("ALWAYS"):
            column.identity = "ALWAYS"
        else:
            parser.expect("BY", "DEFAULT")
            column.on_null = parser.takes("ON", "NULL")
            column.identity = "BY DEFAULT"
        parser.expect("AS", "IDENTITY")
        if not self.state.user.may("CREATE SEQUENCE"):
            raise OracleError(1031)
        if parser.takes("("):
            while not parser.takes(")"):
                word = parser.next().text
                if word not in ("START", "WITH", "INCREMENT", "BY", "1", "CACHE", "NOCACHE", "20", "ORDER", "NOORDER"):
                    raise not_taught(f"the identity option {word}")
        column.nullable = False

    def _column_constraint(self, table: Table, column: ColumnDef, named: str | None) -> bool:
        parser = self.parser
        name = named or self.catalog.new_name()
        here = (column.name,)
        if parser.takes("PRIMARY", "KEY"):
            column.nullable = False
            table.constraints.append(Constraint(name=name, kind="P", columns=here, generated=not named))
        elif parser.takes("UNIQUE"):
            table.constraints.append(Constraint(name=name, kind="U", columns=here, generated=not named))
        elif parser.takes("REFERENCES"):
            table.constraints.append(self._reference(name, here, generated=not named, table=table))
        elif parser.takes("CHECK"):
            table.constraints.append(self._check(name, generated=not named))
        else:
            return False
        return True

    def _table_constraint(self, table: Table) -> None:
        parser = self.parser
        named = parser.identifier() if parser.takes("CONSTRAINT") else None
        name = named or self.catalog.new_name()
        if parser.takes("PRIMARY", "KEY"):
            made = Constraint(name=name, kind="P", columns=tuple(parser.names()), generated=not named)
        elif parser.takes("UNIQUE"):
            made = Constraint(name=name, kind="U", columns=tuple(parser.names()), generated=not named)
        elif parser.takes("FOREIGN", "KEY"):
            columns = tuple(parser.names())
            parser.expect("REFERENCES")
            made = self._reference(name, columns, generated=not named, table=table)
        else:
            parser.expect("CHECK")
            made = self._check(name, generated=not named)
        table.constraints.append(made)

    def _check(self, name: str, *, generated: bool) -> Constraint:
        self.parser.expect("(")
        start = self.parser.here.at
        condition = self.parser.expression()
        text = self.parser.statement[start : self.parser.here.at].strip()
        self.parser.expect(")")
        return Constraint(name=name, kind="C", check=condition, check_text=text, generated=generated)

    def _reference(self, name: str, columns: tuple[str, ...], *, generated: bool, table: Table) -> Constraint:
        schema, parent_name = self.parser.name()
        owner = schema or self.state.schema
        is_self = (owner, parent_name) == (table.owner, table.name)
        parent = table if is_self else self.catalog.table(owner, parent_name, self.state.user)
        named = tuple(self.parser.names()) if self.parser.sees("(") else None
        key = next(
            (one for one in parent.constraints if one.kind in ("P", "U") and named in (None, one.columns)),
            None,
        )
        if key is None:
            raise OracleError(2270, detail="no matching unique or primary key for this column-list")
        if self.parser.sees("ON"):
            raise not_taught("ON DELETE")
        return Constraint(
            name=name,
            kind="R",
            columns=columns,
            parent=(owner, parent_name),
            parent_key=key.name,
            parent_columns=key.columns,
            generated=generated,
        )

    def _physical(self) -> None:
        """Words about storage, which change no answer."""
        while True:
            if self.parser.takes("TABLESPACE"):
                self.parser.identifier()
            elif self.parser.here.text in ("NOLOGGING", "LOGGING", "NOCOMPRESS", "NOPARALLEL", "ROWDEPENDENCIES"):
                self.parser.next()
            else:
                return

    def _partitions(self, table: Table) -> None:
        parser = self.parser
        parser.expect("RANGE")
        (table.partitioned_by,) = parser.names()
        self._known(table, table.partitioned_by)
        parser.expect("(")
        while True:
            parser.expect("PARTITION")
            name = parser.identifier()
            parser.expect("VALUES")
            if not parser.takes("LESS", "THAN", "("):
                raise not_taught("partitions other than by range")
            start = parser.here.at
            below = None if parser.takes("MAXVALUE") else parser.expression()
            text = parser.statement[start : parser.here.at].strip()
            parser.expect(")")
            part = Partition(name=name, below=below, below_text=text, data_object_id=self.catalog.new_object())
            table.parts.append(part)
            if not parser.takes(","):
                break
        parser.expect(")")

    def _drop_table(self) -> None:
        table = self._table()
        cascade = self.parser.takes("CASCADE", "CONSTRAINTS")
        self.parser.takes("PURGE")
        children = [(child, link) for child, link in self.catalog.children(table) if child is not table]
        if children and not cascade:
            raise OracleError(2449, detail="unique/primary keys in table referenced by foreign keys")
        for child, link in children:
            child.constraints.remove(link)
        self.parser.finish()
        self.catalog.drop(table)
        self.store.write(lambda writer: writer.execute(f"DROP TABLE {table.stored}"))

    def _truncate(self) -> None:
        table = self._table()
        self.parser.finish()
        if any(child is not table for child, _ in self.catalog.children(table)):
            raise OracleError(2266, detail="unique/primary keys in table referenced by enabled foreign keys")
        if self.store.locks_on(table):
            raise OracleError(54)
        self.store.write(lambda writer: writer.execute(f"DELETE FROM {table.stored}"))
        for part in table.parts:
            part.data_object_id, part.next_row = self.catalog.new_object(), 0
        table.created_scn, table.changed = self.store.advance(), utc_now()

    def _alter_table(self) -> None:
        table = self._table()
        parser = self.parser
        parser.expect("ADD")
        if parser.takes("CONSTRAINT") or parser.here.text in ("PRIMARY", "UNIQUE", "FOREIGN", "CHECK"):
            raise not_taught("ALTER TABLE ... ADD CONSTRAINT")
        in_parentheses = parser.takes("(")
        added = [self._column(table)]
        while in_parentheses and parser.takes(","):
            added.append(self._column(table))
        if in_parentheses:
            parser.expect(")")
        parser.finish()
        for column in added:
            if table.column(column.name):
                raise OracleError(1430)
            if column.default is not None or column.identity or not column.nullable:
                raise not_taught("ALTER TABLE ... ADD with DEFAULT or NOT NULL")
        for column in added:
            sql = f"ALTER TABLE {table.stored} ADD COLUMN {quoted(column.name)} {column.type.stored}"
            self.store.write(lambda writer, sql=sql: writer.execute(sql))
            table.columns.append(column)
        table.changed = utc_now()

    # Other objects.

    def _create_index(self, *, unique: bool) -> None:
        _, name = self.parser.name()
        self.parser.expect("ON")
        table = self._table()
        columns = tuple(self.parser.names())
        self._physical()
        if any(
            name == index.name
            for one in self.catalog.tables.values()
            for index in one.indexes
            if one.owner == table.owner
        ):
            raise OracleError(955)
        for column in columns:
            self._known(table, column)
        if any(index.columns == columns for index in table.indexes):
            raise OracleError(1408, detail="such column list already indexed")
        if unique:
            keys = ", ".join(map(quoted, columns))
            twice = f"SELECT 1 FROM {table.stored} WHERE {DIED} = {ALIVE} GROUP BY {keys} HAVING count(*) > 1"
            if self.store.cursor().execute(f"{twice} AND count({quoted(columns[0])}) > 0 LIMIT 1").fetchall():
                raise OracleError(1452, detail="cannot CREATE UNIQUE INDEX; duplicate keys found")
        table.indexes.append(Index(name=name, columns=columns, unique=unique))

    def _drop_index(self) -> None:
        _, name = self.parser.name()
        for table in self.catalog.tables.values():
            for index in table.indexes:
                if index.name == name:
                    table.indexes.remove(index)
                    return
        raise OracleError(1418)

    def _create_sequence(self) -> None:
        owner, name = self._own()
        if not self.state.user.may("CREATE SEQUENCE"):
            raise OracleError(1031)
        sequence = Sequence(owner=owner, name=name)
        while self.parser.here.kind == "word":
            if self.parser.takes("START", "WITH"):
                sequence.following = self.parser.whole()
            elif self.parser.takes("INCREMENT", "BY"):
                sequence.step = self.parser.whole()
            elif self.parser.here.text in ("NOCACHE", "NOCYCLE", "ORDER", "NOORDER"):
                self.parser.next()
            else:
                raise not_taught(f"the sequence option {self.parser.here.text}")
        if (owner, name) in self.catalog.sequences:
            raise OracleError(955)
        self.catalog.sequences[owner, name] = sequence

    def _drop_sequence(self) -> None:
        owner, name = self._own()
        if self.catalog.sequences.pop((owner, name), None) is None:
            raise OracleError(2289)

    def _comment(self) -> None:
        parser = self.parser
        if parser.takes("TABLE"):
            table = self._table()
            parser.expect("IS")
            table.comment = parser.text() or None
            return
        parser.expect("COLUMN")
        names = [parser.identifier()]
        while parser.takes("."):
            names.append(parser.identifier())
        owner = names[-3] if len(names) > 2 else self.state.schema
        table = self.catalog.table(owner, names[-2], self.state.user)
        parser.expect("IS")
        self._known(table, names[-1]).comment = parser.text() or None

    def _grant(self) -> None:
        parser = self.parser
        words: list[str] = []
        while not parser.sees("ON") and not parser.sees("TO"):
            words.append(parser.next().text)
            if parser.here.kind == "end":
                raise OracleError(990, detail="missing or invalid privilege")
        privileges = [part.strip() for part in " ".join(words).split(",")]
        table: Any = None
        if parser.takes("ON"):
            table = self._table()
        parser.expect("TO")
        name = parser.identifier()
        user = self.catalog.users.get(name)
        if user is None:
            raise OracleError(1917, detail=f"user or role '{name}' does not exist")
        if table is None:
            if not self.state.user.may("DBA"):
                raise OracleError(1031)
            user.granted.update(privileges)
        else:
            user.granted_on.update((one, table.owner, table.name) for one in privileges)


def _kept(kind: OraType) -> OraType:
    """The type that CREATE TABLE ... AS SELECT gives a column."""
    return OraType(kind="VARCHAR2", length=1) if kind.is_text and kind.length == 0 and not kind.is_lob else kind
