"""A plan with the tables that a batch was begun with: for those who look at, or undo, what it did under that plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from forcelift.plan.document import document_sha256, plan_document
from forcelift.plan.load import LoadedPlan
from forcelift.plan.models import TablePlan


def with_tables(loaded: LoadedPlan, document: Mapping[str, Any], *, checks_of_now: bool = False) -> LoadedPlan:
    """The plan of now, source and target and their secrets too, with the tables of an earlier document.

    Tables hold no secrets, so that the document has them whole.

    Args:
        document: As `plan_document` gave it when the batch was begun.
        checks_of_now: Take the tables' `checks` as they stand now: they compare, and change nothing that was sent.
    """
    checks = {table.table: table.checks for table in loaded.plan.tables} if checks_of_now else {}
    tables = []
    for one in document["tables"]:
        # A document has every rule; one that has its default counts as not written, as it may suit no column.
        written = TablePlan.model_validate(one).model_dump(exclude_defaults=True)
        table = TablePlan.model_validate(written)
        tables.append(table.model_copy(update={"checks": checks[table.table]}) if table.table in checks else table)
    plan = loaded.plan.model_copy(update={"tables": type(loaded.plan.tables)(tables)})
    # Lines of the file are those of other tables.
    return replace(loaded, plan=plan, sha256=document_sha256(plan_document(plan)), positions={})
