"""Values that the plan itself brings: defaults, mapped values, constants, Ids of record types and owners."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import polars as pl
from msgspec import Struct
from msgspec.structs import replace

from forcelift.plan.models import FieldRule
from forcelift.protocols.org import FieldDescribe, ObjectDescribe
from forcelift.rules.column import Column
from forcelift.rules.findings import SENTENCES, Findings, Place
from forcelift.rules.targets import field_column, form_of, nearest


class PlanValues(Struct, frozen=True, kw_only=True):
    """Checks such values against the object and brings them into canonical form; `report` takes the problems."""

    describe: ObjectDescribe
    owners: Mapping[str, str]
    zone: str | None
    report: Callable[[str, str, str | None], None]

    def literal(self, path: str, value: str, column: Column, target: FieldDescribe) -> str | None:
        """A value in canonical form, None after a problem."""
        found = Findings()
        plain = FieldRule(field=column.rule.field, date_format=column.rule.date_format)
        probe = replace(column, rule=plain, codec=None, required=False, is_key=False, picklist=())
        text = probe.clean(pl.Series([value], dtype=pl.String), found, None)[0]
        if found.refusals:
            first = found.refusals[0]
            self.report(path, f"does not fit `{target.name}`: it {first.sentence or SENTENCES[first.rule]}", None)
            return None
        if text is None:
            self.report(path, f"gives no value for `{target.name}`", None)
            return None
        known = column.picklist
        unknown = [part for part in (text.split(";") if column.is_multi else [text]) if part not in known]
        if known and unknown:
            near = nearest(unknown[0], known)
            self.report(path, f"`{target.name}` takes only the values of its picklist{near}", None)
            return None
        return str(text)

    def constant(self, path: str, constant: str | Mapping[str, str], target: FieldDescribe) -> str | None:
        """A constant of the plan in canonical form, None after a problem."""
        return self._text(path, constant, target) if isinstance(constant, str) else self._named(path, constant)

    def _text(self, path: str, constant: str, target: FieldDescribe) -> str | None:
        form = form_of(target.type)
        if form is None:
            self.report(path, f"`{target.name}` is of type {target.type}, which cannot be loaded", None)
            return None
        place = Place(column=target.name, number=0)
        column = field_column(target, form, FieldRule(field=target.name), place, zone=self.zone)
        return self.literal(path, constant, column, target)

    def _named(self, path: str, constant: Mapping[str, str]) -> str | None:
        """The Id of a record type or an owner that the plan names."""
        if list(constant) == ["record_type"]:
            return self._record_type(path, constant["record_type"])
        if list(constant) == ["owner"]:
            if constant["owner"] not in self.owners:
                self.report(path, f"the org has no active user `{constant['owner']}`", None)
            return self.owners.get(constant["owner"])
        hint = "write a text, {record_type: NAME} or {owner: USERNAME}"
        self.report(path, f"`{', '.join(constant)}` is not known here", hint)
        return None

    def _record_type(self, path: str, wanted: str) -> str | None:
        kinds = [kind for kind in self.describe.record_types if kind.active and kind.available]
        for kind in kinds:
            if wanted in (kind.developer_name, kind.name):
                return kind.id
        near = nearest(wanted, [kind.developer_name for kind in kinds])
        self.report(path, f"`{self.describe.name}` has no record type `{wanted}` for this user{near}", None)
        return None
