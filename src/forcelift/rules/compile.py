"""Check a table plan against source and object, and compile it. Pure: no connection; all problems at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl
from msgspec import Struct, field
from msgspec.structs import replace

from forcelift.errors import PlanError, Problem
from forcelift.plan.expressions import expression_columns, parse_expression
from forcelift.plan.models import DuplicateRule, FieldRule, TablePlan
from forcelift.plan.zones import codec_name
from forcelift.protocols.org import FieldDescribe, ObjectDescribe
from forcelift.protocols.source import Column as SourceColumn
from forcelift.protocols.source import ColumnKind, SourceTable
from forcelift.rules.column import Column, Form
from forcelift.rules.computed import Computed
from forcelift.rules.findings import Place
from forcelift.rules.fit import is_zone, misfits
from forcelift.rules.merge import merged_columns
from forcelift.rules.parents import LookupInfo
from forcelift.rules.plan_values import PlanValues
from forcelift.rules.table import CompiledTable
from forcelift.rules.targets import (
    ParentField,
    Target,
    TargetProblem,
    field_column,
    find_target,
    form_of,
    is_required,
    nearest,
    scale_of,
)

_NUMBER_KINDS = (ColumnKind.INTEGER, ColumnKind.DECIMAL, ColumnKind.FLOAT, ColumnKind.BOOLEAN)
_DIGITS_SURE = 15  # a double keeps 15 decimal digits in any case

KEY_DIGITS_MAX = 15
"""Digits of a number that a double holds whatever they are."""


class SourceDefaults(Struct, frozen=True, kw_only=True):
    """What the plan says of the whole source: the encoding of byte columns, the zone of naive timestamps."""

    encoding: str = "utf-8"
    timezone: str | None = None


def compile_table(
    plan: TablePlan,
    *,
    table: SourceTable,
    describe: ObjectDescribe,
    parents: Mapping[str, ParentField],
    link_columns: frozenset[str] = frozenset(),
    defaults: SourceDefaults,
    owners: Mapping[str, str] | None = None,
) -> CompiledTable:
    """Compile a table plan.

    Args:
        parents: For each column of `lookup_targets` whose parent has such a field, that field.
        link_columns: Lookup columns that are sent in the link pass (same object, or a cycle).
        owners: Ids of the users that `owner_names` names, by username; those that do not exist are left out.
    Raises:
        PlanError: With all problems; each has a path, the caller adds line numbers.
    """
    return _Compiler(plan, table, describe, parents, link_columns, defaults, owners or {}).compile()


class _Compiler(Struct):
    plan: TablePlan
    table: SourceTable
    describe: ObjectDescribe
    parents: Mapping[str, ParentField]
    link_columns: frozenset[str]
    defaults: SourceDefaults
    owners: Mapping[str, str]
    problems: list[Problem] = field(default_factory=list)
    columns: dict[str, Column] = field(default_factory=dict)
    targets: dict[str, str] = field(default_factory=dict)
    lookups: dict[str, LookupInfo] = field(default_factory=dict)
    plain: dict[str, Column] = field(default_factory=dict)
    constants: dict[str, str] = field(default_factory=dict)
    computed: list[Computed] = field(default_factory=list)
    fed: dict[str, str] = field(default_factory=dict)  # field of the object -> path of what feeds it
    over_15: list[str] = field(default_factory=list)

    def problem(self, path: str, message: str, hint: str | None = None) -> None:
        self.problems.append(
            Problem(message=message, path=f"tables.{self.plan.table}{'.' if path else ''}{path}", hint=hint)
        )

    @property
    def zone(self) -> str | None:
        """The zone of the table's naive timestamps."""
        return self.plan.timezone or self.defaults.timezone

    @property
    def values(self) -> PlanValues:
        return PlanValues(describe=self.describe, owners=self.owners, zone=self.zone, report=self.problem)

    def compile(self) -> CompiledTable:
        plan = self.plan
        self.check_table()
        key_field = self.check_external_id()
        for number, (name, rule) in enumerate(plan.fields.items(), start=1):
            self.add_field(number, name, rule)
        self.add_key()
        for name, constant in plan.constants.items():
            self.add_constant(name, constant)
        for number, (name, expression) in enumerate(plan.computed.items(), start=len(plan.fields) + 2):
            self.add_computed(number, name, expression)
        changed = self.changed_column()
        self.check_required()
        if self.problems or key_field is None:
            raise PlanError(self.problems)
        return self.result(key_field, changed)

    def result(self, key_field: FieldDescribe, changed: Column | None) -> CompiledTable:
        plan = self.plan
        links = [lookup for lookup in self.lookups.values() if lookup.is_link]
        loaded = [target for name, target in self.targets.items() if name not in self.link_columns]
        loaded += [*self.constants, *(item.target for item in self.computed)]
        wanted = [*plan.key, *self.columns, *([plan.changed_at] if plan.changed_at else []), *self.plain]
        declared = (name for name, rule in plan.fields.items() if rule.parent and name not in self.link_columns)
        first_parent = next(declared, None)
        used = dict.fromkeys(wanted)
        return CompiledTable(
            plan=plan,
            source_columns=tuple(used),
            target_columns=(key_field.name, *(target for target in loaded if target != key_field.name)),
            link_target_columns=(key_field.name, *(lookup.target for lookup in links)) if links else (),
            key_field=key_field.name,
            order_by=(first_parent,) if first_parent else (),
            personal_columns=tuple(name for name in used if self.is_personal(name)),
            lookups=self.lookups,
            numeric_over_15_digits=tuple(self.over_15),
            columns=self.columns,
            targets=self.targets,
            plain_columns=self.plain,
            changed_column=changed,
            changed_kind=self.changed_kind(changed),
            number_columns={name: self.is_bare(name) for name in used if self.is_typed(name)},
            constants=self.constants,
            computed=tuple(self.computed),
            merges=merged_columns(plan, self.columns) if plan.duplicates is DuplicateRule.MERGE else (),
            key_case_sensitive=key_field.case_sensitive,
            key_length=key_field.length or None,
        )

    def is_personal(self, name: str) -> bool:
        rule = self.plan.fields.get(name)
        if rule is not None and rule.personal is not None:
            return rule.personal
        column = self.table.column(name)
        # Bytes are text as soon as an encoding is named.
        return column is not None and column.kind in (ColumnKind.TEXT, ColumnKind.BINARY)

    def check_table(self) -> None:
        plan = self.plan
        if plan.operation == "upsert" and not (self.describe.createable and self.describe.updateable):
            self.problem("object", f"records of `{self.describe.name}` cannot be both created and updated by this user")
        if plan.operation == "insert" and not self.describe.createable:
            self.problem("object", f"records of `{self.describe.name}` cannot be created by this user")
        key = self.describe.fields.get(plan.external_id)
        if plan.operation == "insert" and key is not None and not key.unique:
            self.problem(
                "operation",
                f"`insert` could make a record twice, because `{key.name}` is not unique in the org",
                hint="write `operation: upsert`, or make the field unique",
            )
        if plan.duplicates is DuplicateRule.KEEP_LATEST and plan.changed_at is None:
            self.problem("duplicates", "`keep_latest` needs `changed_at`, the column that says which row is the latest")
        if plan.created_field is not None and plan.created_field not in self.describe.fields:
            near = nearest(plan.created_field, self.describe.fields)
            self.problem("created_field", f"`{self.describe.name}` has no field `{plan.created_field}`{near}")
        for name in sorted(self.link_columns - set(plan.fields)):
            self.problem(f"fields.{name}", "is to be sent in the link pass, but is not mapped")
        if len(set(plan.key)) < len(plan.key):
            self.problem("key", "names a column twice")
        if plan.timezone is not None and not is_zone(plan.timezone):
            self.problem("timezone", f"there is no time zone `{plan.timezone}`", "such as Asia/Bangkok or UTC")

    def check_external_id(self) -> FieldDescribe | None:
        plan = self.plan
        found = self.describe.fields.get(plan.external_id)
        if found is None:
            near = nearest(plan.external_id, self.describe.fields)
            self.problem("external_id", f"`{self.describe.name}` has no field `{plan.external_id}`{near}")
            return None
        if not (found.external_id or found.id_lookup):
            self.problem("external_id", f"`{found.name}` is not an external ID, so rows cannot be matched by it")
        elif form_of(found.type) not in (Form.TEXT, Form.NUMBER):
            self.problem("external_id", f"`{found.name}` is of type {found.type}, which cannot hold a key")
        elif len(plan.key) > 1 and form_of(found.type) is not Form.TEXT:
            self.problem("external_id", f"`{found.name}` is of type {found.type}; a key of several columns needs text")
        return found

    def source_column(self, path: str, name: str) -> SourceColumn | None:
        column = self.table.column(name)
        if column is None:
            near = nearest(name, (other.name for other in self.table.columns))
            self.problem(path, f"`{self.table.name}` has no column `{name}`{near}")
        elif column.kind is ColumnKind.UNSUPPORTED:
            self.problem(path, f"column `{name}` is of type {column.declared}, which cannot be read")
            return None
        return column

    def add_field(self, number: int, name: str, rule: FieldRule) -> None:
        path = f"fields.{name}"
        source = self.source_column(path, name)
        try:
            target = find_target(rule.field, self.describe)
        except TargetProblem as error:
            self.problem(f"{path}.field", str(error))
            return
        self.claim(f"{path}.field", target.field.name)
        self.check_writable(f"{path}.field", target.field)
        if source is None:
            return
        made = self.make_column(path, number, source, rule, target)
        if made is None:
            return
        self.columns[name] = made
        self.targets[name] = target.header
        if target.lookup is not None:
            self.add_lookup(path, made, rule, target)
        else:
            if name in self.link_columns:
                self.problem(path, "is to be sent in the link pass, but is no lookup by a parent's key")
            for option in ("parent", "missing_parent"):
                if option in rule.model_fields_set and getattr(rule, option) is not None:
                    self.problem(
                        f"{path}.{option}", f"`{rule.field}` is no lookup by a parent's key such as `Parent__r.Key__c`"
                    )

    def claim(self, path: str, field_name: str) -> None:
        """A field takes one value: note who gives it."""
        if field_name in self.fed:
            self.problem(path, f"`{field_name}` is fed by `{self.fed[field_name]}` already")
        self.fed.setdefault(field_name, path)

    def check_writable(self, path: str, target: FieldDescribe) -> None:
        if target.calculated or target.auto_number:
            self.problem(path, f"`{target.name}` is filled by Salesforce itself (formula or auto-number)")
        elif not target.createable:
            self.problem(path, f"`{target.name}` cannot be written when a record is created")
        elif self.plan.operation == "upsert" and not target.updateable and not target.cascade_delete:
            # The parent of a master-detail may be set by an upsert that creates; it cannot be avoided either.
            self.problem(path, f"`{target.name}` cannot be updated, as `operation: upsert` would")

    def make_column(
        self, path: str, number: int, source: SourceColumn, rule: FieldRule, target: Target
    ) -> Column | None:
        """The column's rules, or None after a problem that leaves nothing to go on with."""
        parent = self.parents.get(source.name) if target.lookup else None
        if target.lookup is not None and parent is None:
            lookup = target.lookup
            self.problem(f"{path}.field", f"`{lookup.parent_object}` has no field `{lookup.key_field}`")
            return None
        field_type = parent.type if parent else target.field.type
        form = form_of(field_type)
        if form is None:
            self.problem(f"{path}.field", f"`{target.header}` is of type {field_type}, which cannot be loaded")
            return None
        is_key = self.plan.key == (source.name,)
        place = Place(column=source.name, number=number)
        zone = rule.timezone or self.zone
        if parent is None:
            made = field_column(target.field, form, rule, place, zone=zone)
        else:
            scale = scale_of(field_type, parent.scale) if form is Form.NUMBER else None
            made = Column(name=source.name, place=place, rule=rule, form=form, scale=scale, zone=zone)
        required = is_required(target.field) and not is_key
        made = replace(made, codec=self.codec(path, source, rule), required=required, is_key=is_key)
        if is_key and form is Form.NUMBER:
            # The org answers with doubles: longer numbers come back changed, and two keys could become one.
            digits = max(1, KEY_DIGITS_MAX - (made.scale or 0))
            made = replace(made, integer_digits=min(made.integer_digits or digits, digits))
        if self.fits(path, source, rule, made):
            made = self.with_values(path, rule, made, target.field)
            self.note_digits(source, made, target.field)
        if is_key and target.field.name != self.plan.external_id:
            self.problem(f"{path}.field", f"the key goes into `{self.plan.external_id}`, not into `{rule.field}`")
        if not is_key and target.field.name == self.plan.external_id:
            self.problem(f"{path}.field", f"`{self.plan.external_id}` takes the key, {', '.join(self.plan.key)}")
        return made

    def codec(self, path: str, source: SourceColumn, rule: FieldRule) -> str | None:
        encoding = rule.encoding or self.plan.encoding or self.defaults.encoding
        try:
            return codec_name(encoding)
        except LookupError:
            where = f"{path}.encoding" if rule.encoding else path
            self.problem(where, f"there is no encoding `{encoding}`", "such as utf-8, TIS-620, windows-874, latin-1")
            return None

    def fits(self, path: str, source: SourceColumn, rule: FieldRule, made: Column) -> bool:
        """True if the column's kind can become the field's form and its rules say something about it."""
        before = len(self.problems)
        for option, message, hint in misfits(source, rule, made, self.plan):
            self.problem(f"{path}.{option}" if option else path, message, hint)
        return len(self.problems) == before

    def with_values(self, path: str, rule: FieldRule, made: Column, target: FieldDescribe) -> Column:
        """Check the values that the plan itself brings (mapped values, the default) and take up the default."""
        for raw, value in (rule.values or {}).items():
            if value != "":
                self.values.literal(f"{path}.values.{raw}", value, made, target)
        if not isinstance(rule.empty, dict):
            return made
        default = self.values.literal(f"{path}.empty.default", rule.empty["default"], made, target)
        return replace(made, default=default)

    def note_digits(self, source: SourceColumn, made: Column, target: FieldDescribe) -> None:
        """Columns whose numbers may have more digits than a double keeps."""
        if made.form is not Form.NUMBER or made.scale is None or made.integer_digits is None:
            return
        whole, scale = made.integer_digits, made.scale
        if source.precision is not None:
            whole = min(whole, source.precision - (source.scale or 0))
            scale = min(scale, max(source.scale or 0, 0))
        elif source.kind is ColumnKind.INTEGER:
            scale = 0
        if whole + scale > _DIGITS_SURE and source.kind is not ColumnKind.FLOAT:
            self.over_15.append(source.name)

    def add_lookup(self, path: str, made: Column, rule: FieldRule, target: Target) -> None:
        assert target.lookup is not None
        parent = self.parents[made.name]
        if not parent.id_lookup:
            self.problem(f"{path}.field", f"`{parent.name}` of `{target.lookup.parent_object}` is not an external ID")
        is_link = made.name in self.link_columns
        required = is_required(target.field) or target.field.cascade_delete
        if is_link and required:
            self.problem(
                path,
                f"`{target.field.name}` is required, so it cannot be filled by a second pass over the same records",
                "break the circle of tables at another lookup",
            )
        self.lookups[made.name] = LookupInfo(
            column=made.name,
            target=target.header,
            field=target.field.name,
            parent_table=rule.parent,
            parent_object=target.lookup.parent_object,
            key_field=target.lookup.key_field,
            is_link=is_link,
            case_sensitive=parent.case_sensitive,
            required=required,
            to_null=rule.missing_parent == "to_null",
            place=made.place,
        )

    def plain_column(self, path: str, name: str, number: int) -> Column | None:
        """A column as text for keys and joined texts, with the default rules."""
        if name in self.plain:
            return self.plain[name]
        source = self.source_column(path, name)
        if source is None:
            return None
        rule = self.plan.fields.get(name) or FieldRule(field=name)
        if source.kind is ColumnKind.BINARY and rule.encoding is None:
            self.problem(path, f"column `{name}` is of type {source.declared}, which cannot become text")
            return None
        mapped = self.columns.get(name)
        return Column(
            name=name,
            place=mapped.place if mapped else Place(column=name, number=number),
            rule=FieldRule(field=name, encoding=rule.encoding, encoding_error=rule.encoding_error),
            form=Form.TEXT,
            codec=self.codec(path, source, rule),
        )

    def add_key(self) -> None:
        plan = self.plan
        number = len(plan.fields) + 1
        if len(plan.key) > 1:
            for name in plan.key:
                made = self.plain_column("key", name, number)
                if made is not None:
                    self.plain[name] = made
            if plan.external_id in self.describe.fields:
                self.claim("key", plan.external_id)
                self.check_writable("external_id", self.describe.fields[plan.external_id])
            return
        name = plan.key[0]
        if name not in plan.fields and plan.external_id in self.describe.fields:
            known = len(self.problems)
            self.add_field(number, name, FieldRule(field=plan.external_id))
            renamed = [
                Problem(message=item.message, path=f"tables.{plan.table}.key", hint=item.hint)
                for item in self.problems[known:]
            ]
            self.problems[known:] = renamed

    def add_constant(self, name: str, constant: str | dict[str, str]) -> None:
        path = f"constants.{name}"
        target = self.describe.fields.get(name)
        if target is None:
            self.problem(path, f"`{self.describe.name}` has no field `{name}`{nearest(name, self.describe.fields)}")
            return
        self.claim(path, name)
        self.check_writable(path, target)
        text = self.values.constant(path, constant, target)
        if text is not None:
            self.constants[name] = text

    def add_computed(self, number: int, name: str, expression: dict[str, Any]) -> None:
        path = f"computed.{name}"
        target = self.describe.fields.get(name)
        if target is None:
            self.problem(path, f"`{self.describe.name}` has no field `{name}`{nearest(name, self.describe.fields)}")
            return
        self.claim(path, name)
        self.check_writable(path, target)
        read, faults = parse_expression(expression)
        for fault in faults:
            self.problem(".".join(map(str, (path, *fault.path))), fault.message, fault.hint)
        form = form_of(target.type)
        if form is None:
            self.problem(path, f"`{target.name}` is of type {target.type}, which cannot be loaded")
        if read is None or form is None:
            return
        columns = expression_columns(read)
        for column in columns:
            plain = None if column in self.columns else self.plain_column(path, column, number)
            if plain is not None:
                self.plain[column] = plain
        place = Place(column=",".join(columns) or name, number=number)
        made = field_column(target, form, FieldRule(field=name), place, zone=self.zone)
        has_zones = all(column in self.columns and self.columns[column].form is Form.DATETIME for column in columns)
        if form is Form.DATETIME and made.zone is None and not has_zones:
            self.problem(path, "may give times without a zone", "add `timezone:` to the table or under `source`")
        self.computed.append(Computed(target=name, expression=read, column=made))

    def changed_column(self) -> Column | None:
        name = self.plan.changed_at
        if name is None:
            return None
        return self.columns.get(name) or self.plain_column("changed_at", name, 0)

    def changed_kind(self, changed: Column | None) -> pl.DataType | None:
        source = self.table.column(self.plan.changed_at or "")
        if source is None or changed is None:
            return None
        match source.kind:
            case ColumnKind.FLOAT:
                return pl.Float64()
            case ColumnKind.DECIMAL:
                return pl.Decimal(38, source.arrow.scale)
            case ColumnKind.INTEGER:
                return pl.Decimal(38, 19)
            case ColumnKind.DATE | ColumnKind.TIMESTAMP | ColumnKind.INSTANT:
                return pl.Datetime("us")
        # What a text means, a number or a text, is said by the field that it goes to.
        return pl.Decimal(38, 19) if changed.form is Form.NUMBER else None

    def is_typed(self, name: str) -> bool:
        """A column of numbers or booleans, of which the plan does not say that it may be shown whatever it holds."""
        source, rule = self.table.column(name), self.plan.fields.get(name)
        return source is not None and source.kind in _NUMBER_KINDS and (rule is None or rule.personal is None)

    def is_bare(self, name: str) -> bool:
        """Whether JSON shows the column's values without quotes: decimals have more digits than its numbers keep."""
        source = self.table.column(name)
        return source is not None and source.kind is not ColumnKind.DECIMAL

    def check_required(self) -> None:
        for name, target in self.describe.fields.items():
            if is_required(target) and name not in self.fed:
                self.problem("fields", f"`{name}` of `{self.describe.name}` is required, and nothing is mapped to it")


def owner_names(plan: TablePlan) -> tuple[str, ...]:
    """Usernames that constants of the plan name as `{owner: USERNAME}`, for `compile_table`'s `owners`."""
    constants = plan.constants.values()
    return tuple(constant["owner"] for constant in constants if isinstance(constant, dict) and "owner" in constant)
