"""Syntax tree and schema to one DuckDB SELECT: what may be selected, grouped and ordered, and in which words."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count

from forcelift.twin.soql.ast import Call, Comparison, Condition, Expression, Junction, Negation, Path, Query, SelectItem
from forcelift.twin.soql.compiled import ChildQuery, CompiledQuery, OutputColumn, ParentRecord, plain
from forcelift.twin.soql.conditions import Conditions
from forcelift.twin.soql.errors import NotModelled, SoqlError, located, malformed, unknown_relationship
from forcelift.twin.soql.functions import AGGREGATES, DISPLAYED
from forcelift.twin.soql.literals import Literals, constant
from forcelift.twin.soql.parse import parse
from forcelift.twin.soql.polymorphic import NamePointing
from forcelift.twin.soql.resolve import Scope, object_named, require_groupable, require_sortable
from forcelift.twin.soql.views import Category, FieldView, ObjectView, Operand, SchemaView, field_operand, quoted

OFFSET_MAX = 2000
FIELDS_LIMIT_MAX = 200
CHILD_QUERIES_MAX = 20
SEMI_JOINS_MAX = 2
ROLLUP_FIELDS_MAX = 3
OF_THE_USER_ALONE = "UserPermissionAccess"
"""Of this object everybody sees one record: what he or she may do."""
_FIELD_GROUPS = ("ALL", "STANDARD", "CUSTOM")


def compile_query(
    text: str,
    schema: SchemaView,
    *,
    bulk: bool = False,
    include_deleted: bool = False,
    now: datetime | None = None,
    user_id: str | None = None,
) -> CompiledQuery:
    """Translate SOQL.

    Args:
        text: The query.
        schema: The org's objects.
        bulk: Refuse what Bulk API 2.0 query jobs refuse.
        include_deleted: `queryAll`: records of the recycle bin too.
        now: What `TODAY` means; aware. The present by default.
        user_id: Whose records `USING SCOPE mine` means.
    Raises:
        SoqlError: As Salesforce answers it.
    """
    query = parse(text)
    moment = (now or datetime.now(UTC)).astimezone(UTC)
    job = _Job(text=text, schema=schema, now=moment, user_id=user_id, numbers=count())
    entity = object_named(text, schema, query.object_path)
    if not entity.queryable:
        raise SoqlError("INVALID_TYPE_FOR_OPERATION", f"entity type {entity.name} does not support query")
    if bulk and not entity.bulk_capable:
        raise SoqlError("INVALIDENTITY", f"Entity '{entity.name}' is not supported by the Bulk API.")
    if any(_is_typeof(item) for item in query.select):
        if bulk:
            raise SoqlError("API_ERROR", "Implementation restriction: TYPEOF not supported in Bulk Query")
        raise NotModelled("TYPEOF")
    compiled = _Select(job, query, entity, include_deleted=include_deleted).compile()
    if bulk:
        _require_bulk(query, compiled)
    return compiled


def _require_bulk(query: Query, compiled: CompiledQuery) -> None:
    """Refuse what a query job cannot do.

    Source:
        Bulk API 2.0 guide, "SOQL Considerations"; texts as bulk clients know them (section 4 of the API reference).
    """
    if compiled.children:
        raise SoqlError("API_ERROR", "Aggregate Relationships not supported in Bulk Query")
    if compiled.is_count or compiled.is_aggregate:
        what = "GROUP BY" if query.group_by else "Aggregate functions"
        raise SoqlError("API_ERROR", f"Implementation restriction: {what} not supported in Bulk Query")
    if any(_field_group_of(item.expression) in ("ALL", "CUSTOM") for item in query.select):
        raise SoqlError("API_ERROR", "Implementation restriction: FIELDS() without bounds not supported in Bulk Query")
    if query.offset is not None:
        raise SoqlError("API_ERROR", "Implementation restriction: OFFSET not supported in Bulk Query")
    if any(column.category is Category.COMPOUND for column in compiled.columns):
        raise SoqlError("API_ERROR", "Selecting compound data not supported in Bulk Query")
    if any(column.type == "base64" for column in compiled.columns):
        raise SoqlError("API_ERROR", "Binary fields are not supported in Bulk Query")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """What the SELECTs of one query share."""

    text: str
    schema: SchemaView
    now: datetime
    user_id: str | None
    numbers: Iterator[int]


class _Select:
    """Compiles one SELECT: the query itself, a child query, or the inside of a semi-join."""

    def __init__(
        self,
        job: _Job,
        query: Query,
        entity: ObjectView,
        *,
        include_deleted: bool,
        is_child: bool = False,
        is_semi_join: bool = False,
    ) -> None:
        self.job = job
        self.text = job.text
        self.query = query
        self.entity = entity
        self.include_deleted = include_deleted
        self.is_child = is_child
        self.is_semi_join = is_semi_join
        self.scope = Scope(job.text, job.schema, entity, query.alias, job.numbers)
        self.literals = Literals(job.text, job.now)
        self.is_count = _is_count(query)
        self.group_sqls: set[str] = set()

    def compile(self) -> CompiledQuery:
        query = self.query
        if query.all_rows:
            raise malformed(self.text, query.clauses["ALL ROWS"], "ALL ROWS not allowed in this context")
        self._require_semi_joins(query.where)
        form, expressions = self._grouped(query.group_by)
        groups = [self._group(expression) for expression in expressions]
        self.group_sqls = {group.sql for group in groups}
        is_aggregate = bool(groups) or self.is_count or any(_is_aggregate(item) for item in query.select)
        columns = () if self.is_count else tuple(self._columns(is_aggregate))
        children = tuple(self._child(item.query) for item in query.select if item.query is not None)
        self._require_sound(is_aggregate, columns, children)
        where = self._where()
        having = self._having()
        order = self._order(is_aggregate)
        id_sql = f'{self.scope.table}."Id"'
        parents = () if is_aggregate else self._parents(columns)
        listed = ", ".join(dict.fromkeys(group.sql for group in groups))
        group = f"GROUP BY {form}({listed})" if form else f"GROUP BY {listed}" if groups else ""
        joins = [child.join_sql(at, id_sql) for at, child in enumerate(children)]
        body = " ".join(filter(None, [self.scope.from_sql(), *joins, where, group, having]))
        return CompiledQuery(
            object_name=self.entity.name,
            columns=columns,
            is_count=self.is_count,
            is_aggregate=is_aggregate,
            is_ordered=bool(query.order_by),
            parents=parents,
            children=children,
            id_sql=id_sql,
            body_sql=body,
            order_sql=order,
            limit=query.limit,
            offset=query.offset,
        )

    def _require_sound(
        self, is_aggregate: bool, columns: tuple[OutputColumn, ...], children: tuple[ChildQuery, ...]
    ) -> None:
        query = self.query
        if query.offset is not None and query.offset > OFFSET_MAX:
            raise SoqlError("NUMBER_OUTSIDE_VALID_RANGE", f"Maximum SOQL offset allowed is {OFFSET_MAX}")
        if is_aggregate and children:
            raise malformed(self.text, query.position, "only root queries support aggregate expressions")
        if self.is_count and (query.group_by or query.order_by):
            position = min(query.clauses[name] for name in ("GROUP BY", "ORDER BY") if name in query.clauses)
            raise malformed(self.text, position, "Count() queries cannot be grouped or ordered")
        seen: set[tuple[str, ...]] = set()
        for column in columns:
            key = tuple(part.lower() for part in column.keys)
            if key in seen:
                kind = "alias" if is_aggregate else "field selected"
                raise SoqlError("INVALID_FIELD", f"duplicate {kind}: {column.name}")
            seen.add(key)
        keys = [child.key for child in children]
        if len(keys) > CHILD_QUERIES_MAX:
            reason = f"a query may have at most {CHILD_QUERIES_MAX} subqueries"
            raise malformed(self.text, query.position, reason)
        if len(keys) != len(set(keys)):
            raise SoqlError("INVALID_FIELD", "Cannot use the same relationship in more than one subquery")

    def _columns(self, is_aggregate: bool) -> Iterator[OutputColumn]:
        unnamed = count()
        for item in self.query.select:
            expression = item.expression
            if expression is None:
                continue
            which = _field_group_of(expression)
            if which is not None:
                yield from self._field_group(expression, which, is_aggregate)
                continue
            if isinstance(expression, Call) and expression.name.upper() == "COUNT" and not expression.arguments:
                raise malformed(self.text, item.position, "COUNT() must be the only element in the SELECT list")
            operand = self.scope.operand(expression, aggregates=True, displayed=True)
            if not is_aggregate:
                yield self._plain_column(item, expression, operand)
                continue
            if not operand.is_aggregate and not self._is_grouped(expression, operand):
                raise malformed(self.text, item.position, f"Field must be grouped or aggregated: {operand.name}")
            if item.alias is not None:
                key = item.alias
            else:
                key = operand.keys[-1] if isinstance(expression, Path) else f"expr{next(unnamed)}"
            yield OutputColumn(name=key, keys=(key,), sql=operand.sql, category=operand.category, type=operand.type)

    def _plain_column(self, item: SelectItem, expression: Expression, operand: Operand) -> OutputColumn:
        if isinstance(expression, Call) and item.alias is not None and expression.name.upper() in DISPLAYED:
            return OutputColumn(
                name=item.alias, keys=(item.alias,), sql=operand.sql, category=operand.category, type=operand.type
            )
        if item.alias is not None:
            raise malformed(self.text, item.position, "only aggregate expressions use field aliasing")
        if isinstance(expression, Call) and operand.name != ".".join(operand.keys):
            raise malformed(self.text, item.position, f"Field must be grouped or aggregated: {operand.name}")
        return OutputColumn(
            name=operand.name,
            keys=operand.keys,
            sql=operand.sql,
            category=operand.category,
            type=operand.type,
            is_long_text=operand.is_long_text,
        )

    def _field_group(self, call: Expression, which: str, is_aggregate: bool) -> Iterator[OutputColumn]:
        """The columns of FIELDS(ALL), FIELDS(STANDARD) or FIELDS(CUSTOM)."""
        if which not in _FIELD_GROUPS or is_aggregate:
            raise malformed(self.text, call.position, "The SOQL FIELDS function must be FIELDS(ALL|STANDARD|CUSTOM)")
        if which != "STANDARD" and (self.query.limit is None or self.query.limit > FIELDS_LIMIT_MAX):
            raise SoqlError(
                "MALFORMED_QUERY", f"The SOQL FIELDS function must have a LIMIT of at most {FIELDS_LIMIT_MAX}"
            )
        for field in self.entity.fields:
            if self.entity.field(field.name) is None:
                continue  # hidden from the caller
            if which == "ALL" or field.custom == (which == "CUSTOM"):
                operand = field_operand(field, self.scope.table, (field.name,), call.position)
                yield OutputColumn(
                    name=field.name,
                    keys=(field.name,),
                    sql=operand.sql,
                    category=operand.category,
                    type=field.type,
                    is_long_text=operand.is_long_text,
                )

    def _is_grouped(self, expression: Expression, operand: Operand) -> bool:
        """True for a grouped field, and for FORMAT or toLabel of one."""
        if operand.sql in self.group_sqls:
            return True
        if isinstance(expression, Call) and expression.name.upper() in DISPLAYED:
            return all(
                self._is_grouped(part, self.scope.operand(part, aggregates=True, displayed=True))
                for part in expression.arguments
            )
        return operand.is_aggregate

    def _grouped(self, group_by: tuple[Expression, ...]) -> tuple[str, tuple[Expression, ...]]:
        """ROLLUP or CUBE, if either stands in GROUP BY (then alone), and what is grouped."""
        forms = [part for part in group_by if isinstance(part, Call) and part.name.upper() in ("ROLLUP", "CUBE")]
        if not forms:
            return "", group_by
        form = forms[0]
        if len(group_by) > 1 or not form.arguments or len(form.arguments) > ROLLUP_FIELDS_MAX:
            reason = f"GROUP BY {form.name.upper()} takes one to {ROLLUP_FIELDS_MAX} fields and stands alone"
            raise malformed(self.text, form.position, reason)
        return form.name.upper(), form.arguments

    def _require_semi_joins(self, where: Condition | None) -> None:
        """At most two semi-joins or anti-joins, and none below OR or NOT."""
        found = list(_semi_joins(where, under=None)) if where is not None else []
        if len(found) > SEMI_JOINS_MAX:
            reason = f"Maximum {SEMI_JOINS_MAX} semi join sub-selects are allowed"
            raise malformed(self.text, found[SEMI_JOINS_MAX][0].position, reason)
        for comparison, under in found:
            if under is not None:
                reason = f"Semi join sub-selects are not allowed with the '{under}' operator"
                raise malformed(self.text, comparison.position, reason)

    def _group(self, expression: Expression) -> Operand:
        operand = self.scope.operand(expression)
        require_groupable(self.text, operand)
        return operand

    def _where(self) -> str:
        terms = []
        if not self.include_deleted and self.entity.field("IsDeleted") is not None:
            terms.append(f'NOT {self.scope.table}."IsDeleted"')
        if self.entity.name == OF_THE_USER_ALONE:
            terms.append(f'{self.scope.table}."Id" = {constant(self.job.user_id or "")}')
        if self.query.scope is not None:
            terms += self._mine(self.query.scope)
        if self.query.where is not None:
            semi_join = None if self.is_semi_join else self._semi_join
            conditions = Conditions(self.literals, self.scope.operand, semi_join)
            terms.append(conditions.sql(self.query.where))
        return f"WHERE {' AND '.join(terms)}" if terms else ""

    def _mine(self, scope: str) -> list[str]:
        owner = self.entity.field("OwnerId")
        match scope.lower():
            case "everything":
                return []
            case "mine" if owner is not None and self.job.user_id is not None:
                return [f"{self.scope.table}.{quoted(owner.name)} = {constant(self.job.user_id)}"]
        position = self.query.clauses["USING SCOPE"]
        raise malformed(self.text, position, f"scope '{scope}' is not supported for {self.entity.name}")

    def _having(self) -> str:
        if self.query.having is None:
            return ""

        def resolve(expression: Expression) -> Operand:
            return self._in_groups(self.scope.operand(expression, aggregates=True))

        return f"HAVING {Conditions(self.literals, resolve, None).sql(self.query.having)}"

    def _in_groups(self, operand: Operand) -> Operand:
        if not operand.is_aggregate and operand.sql not in self.group_sqls:
            raise malformed(self.text, operand.position, f"Field must be grouped or aggregated: {operand.name}")
        return operand

    def _order(self, is_aggregate: bool) -> str:
        parts = []
        for item in self.query.order_by:
            operand = self.scope.operand(item.expression, aggregates=is_aggregate)
            require_sortable(self.text, operand)
            if is_aggregate:
                self._in_groups(operand)
            direction = "DESC" if item.descending else "ASC"
            nulls = "LAST" if item.nulls_last else "FIRST"
            parts += [f"{expression} {direction} NULLS {nulls}" for expression in _sort_keys(operand)]
        if parts and not is_aggregate:
            # Equal keys keep one order, so that pages of the same query fit together.
            parts.append(f'{self.scope.table}."Id"')
        return f"ORDER BY {', '.join(parts)}" if parts else ""

    def _parents(self, columns: tuple[OutputColumn, ...]) -> tuple[ParentRecord, ...]:
        wanted = {column.keys[:depth] for column in columns for depth in range(1, len(column.keys))}
        return tuple(
            ParentRecord(
                keys=keys,
                object_name=entity.name,
                id_sql=f"""{table}."Type" || '/' || {table}."Id\""""
                if isinstance(entity, NamePointing)
                else f'{table}."Id"',
            )
            for keys, (table, entity) in self.scope.parents().items()
            if keys in wanted
        )

    def _semi_join(self, outer: Operand, query: Query) -> str:
        """The SELECT inside `IN (...)`: one id or reference field of another object, compared with one."""
        entity = object_named(self.text, self.job.schema, query.object_path)
        if entity.name == self.entity.name:
            reason = "The inner and outer selects should not be on the same object type"
            raise malformed(self.text, query.object_path.position, reason)
        for clause in ("LIMIT", "ORDER BY", "OFFSET", "FOR"):
            if clause in query.clauses:
                reason = f"{clause} is not allowed in the inner select of a semi join"
                raise malformed(self.text, query.clauses[clause], reason)
        inner = _Select(self.job, query, entity, include_deleted=self.include_deleted, is_semi_join=True).compile()
        if len(inner.columns) != 1 or inner.is_aggregate or inner.is_count or inner.children:
            raise malformed(self.text, query.position, "The inner select of a semi join must select exactly one field")
        if outer.category is not Category.ID or inner.columns[0].category is not Category.ID:
            reason = "The fields of a semi join and of its inner select must be id or reference fields"
            raise located(self.text, outer.position, "INVALID_QUERY_FILTER_OPERATOR", reason)
        if len(inner.columns[0].keys) > 1:
            reason = "The inner select of a semi join cannot select a field of a parent"
            raise malformed(self.text, query.position, reason)
        return inner.select_sql(plain, hidden=False)

    def _child(self, query: Query) -> ChildQuery:
        name = str(query.object_path)
        if self.is_child or self.is_semi_join:
            raise malformed(self.text, query.position, "a subquery cannot stand inside another one here")
        entity, lookup = self._child_lookup(name, query.object_path.position)
        select = _Select(self.job, query, entity, include_deleted=self.include_deleted, is_child=True)
        compiled = select.compile()
        if compiled.is_aggregate or compiled.is_count:
            raise malformed(self.text, query.position, "only root queries support aggregate expressions")
        return ChildQuery(
            key=lookup.child_relationship_name or name,
            query=compiled,
            parent_sql=f"{select.scope.table}.{quoted(lookup.name)}",
        )

    def _child_lookup(self, relationship: str, position: int) -> tuple[ObjectView, FieldView]:
        """The object whose lookup gives this object the child relationship, and that lookup."""
        for child, lookup in self.job.schema.children(self.entity.name):
            if (lookup.child_relationship_name or "").lower() == relationship.lower():
                return child, lookup
        raise unknown_relationship(self.text, position, relationship)


def _is_count(query: Query) -> bool:
    first = query.select[0].expression
    bare = isinstance(first, Call) and first.name.upper() == "COUNT" and not first.arguments
    return bare and len(query.select) == 1 and query.select[0].alias is None


def _is_aggregate(item: SelectItem) -> bool:
    expression = item.expression
    while isinstance(expression, Call) and expression.name.upper() in DISPLAYED and expression.arguments:
        expression = expression.arguments[0]
    return isinstance(expression, Call) and expression.name.upper() in AGGREGATES


def _field_group_of(expression: Expression | None) -> str | None:
    """What FIELDS(...) asks for, in upper case; empty if it is not one name, None for any other expression."""
    if not isinstance(expression, Call) or expression.name.upper() != "FIELDS":
        return None
    argument = expression.arguments[0] if len(expression.arguments) == 1 else None
    return str(argument).upper() if isinstance(argument, Path) else ""


def _is_typeof(item: SelectItem) -> bool:
    return item.expression is None and (item.query is None or any(map(_is_typeof, item.query.select)))


def _sort_keys(operand: Operand) -> list[str]:
    """What ORDER BY sorts by: picklists in the order of their entries, then of their text; text without its case."""
    if operand.category is not Category.TEXT:
        return [operand.sql]
    folded = operand.sql if operand.case_sensitive else f"lower({operand.sql})"
    if not operand.labels or operand.is_aggregate:
        return [folded]
    entries = ", ".join(constant(value) for value, _ in operand.labels)
    place = f"coalesce(list_position([{entries}], {operand.sql}), {len(operand.labels) + 1})"
    return [f"CASE WHEN {operand.sql} IS NOT NULL THEN {place} END", folded]


def _semi_joins(condition: Condition, *, under: str | None) -> Iterator[tuple[Comparison, str | None]]:
    """The semi-joins of a condition, each with the OR or NOT that it stands below."""
    match condition:
        case Comparison(query=None):
            return
        case Comparison():
            yield condition, under
        case Negation():
            yield from _semi_joins(condition.term, under=under or "NOT")
        case Junction():
            for term in condition.terms:
                yield from _semi_joins(term, under=under or ("OR" if condition.operator == "OR" else None))
