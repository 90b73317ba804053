"""The checklist's functions of validation, by their names, arguments and result keys.

The plan is `forcelift.yaml` in the current folder, or the one that `FORCELIFT_PLAN` names, unless `plan` is given.
Table, object, columns and fields must be the plan's own: what it maps is what was sent, and only that can be compared.
Nothing is written down; `forcelift validate` keeps results.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from forcelift.after.validate.aggregates import totals, variance_percent
from forcelift.after.validate.business_rules import GROUPS_MAX, group_checks, needed_fields, query_checks
from forcelift.after.validate.checks import Check, CheckStatus, Kind, minus
from forcelift.after.validate.counts import count_table
from forcelift.after.validate.execute import TableValidation
from forcelift.after.validate.samples import sample
from forcelift.after.validate.world import EXAMPLES_MAX, SAMPLE_ROWS, VARIANCE_PERCENT, ValidateSettings, ValidateWorld
from forcelift.errors import StateConflict, UsageError
from forcelift.validating.batch import open_world


def validate_counts(
    table_name: str, sf_object: str, *, plan: str | Path | None = None, batch_id: str | None = None
) -> dict[str, Any]:
    """Compare record counts between source and org.

    Returns:
        `table`; `oracle_count`, rows of the source within the plan's `where` now (as they were read, for a sample);
        `sf_count`, records in the org that the project has written, as far as a count tells them from others';
        `difference`, `match`, and `match_rate` in percent.
    """
    with _opened(table_name, sf_object, plan, batch_id, ValidateSettings(levels=(1,))) as (world, table):
        counts = count_table(world, table.population, table.shape)
        source = counts.source_then if counts.source_now is None else counts.source_now
        return {
            "table": table_name,
            "oracle_count": source,
            "sf_count": counts.org,
            "difference": source - counts.org,
            "match": source == counts.org,
            "match_rate": counts.org / source * 100 if source else 0,
        }


def validate_aggregates(
    table_name: str,
    sf_object: str,
    amount_col: str,
    sf_amount_field: str,
    *,
    plan: str | Path | None = None,
    batch_id: str | None = None,
) -> dict[str, Any]:
    """Compare the sum of a number column with that of its field, over the same records, as exact decimals.

    Returns:
        `table`; `oracle_sum`, `sf_sum`, None where there is no value at all; `variance` and `variance_pct`, None where
        one side has no sum, the source's is 0 and the org's is not, or no row is in the source as it was sent;
        `acceptable` below 0.01 percent.
    """
    with _opened(table_name, sf_object, plan, batch_id, ValidateSettings(levels=(2,))) as (_, table):
        found = table.shape.work.rules.targets.get(amount_col)
        column = next((one for one in table.number_columns if one.name == sf_amount_field == found), None)
        if column is None:
            raise UsageError(
                f"the plan of `{table_name}` does not map column `{amount_col}` to a number field `{sf_amount_field}`",
                state="nothing was compared",
                hint="name a column and the field that the plan fills from it",
            )
        source = totals(table.sides(), "sent", column).total
        target = totals(table.sides(), "org", column).total
        percent = None if table.sides().is_unknown else variance_percent(source, target)
        return {
            "table": table_name,
            "oracle_sum": source,
            "sf_sum": target,
            "variance": abs(minus(source, target)) if source is not None and target is not None else None,
            "variance_pct": percent,
            "acceptable": percent is not None and percent < VARIANCE_PERCENT,
        }


def validate_sample_records(
    table_name: str,
    sf_object: str,
    key_column: str,
    sample_size: int = SAMPLE_ROWS,
    *,
    seed: int = 0,
    plan: str | Path | None = None,
    batch_id: str | None = None,
) -> dict[str, Any]:
    """Compare the fields of random records after the plan's own cleaning.

    Returns:
        `sample_size`, records compared, fewer than asked for where the source has changed or has no more; `mismatches`,
        records with a difference; `mismatch_details`, the first 10 fields that differ, personal values masked;
        `match_rate` in percent of the records.
    """
    asked = ValidateSettings(levels=(3,), sample_rows=sample_size, seed=seed)
    with _opened(table_name, sf_object, plan, batch_id, asked) as (world, table):
        keys = ",".join(table.shape.work.plan.key)
        if key_column != keys:
            raise UsageError(
                f"the key of `{table_name}` is `{keys}`, not `{key_column}`",
                state="nothing was compared",
                hint="name the plan's key; columns of a key of several are joined by commas",
            )
        sampled = sample(world, table.population, table.shape, table.owned_elsewhere())
        return {
            "sample_size": sampled.compared,
            "mismatches": sampled.wrong,
            "mismatch_details": [
                {
                    "key": one.key,
                    "field": one.field,
                    "oracle_value": one.source,
                    "sf_value": "(no record)" if one.kind is Kind.MISSING else one.target,
                }
                for one in sampled.differences[:EXAMPLES_MAX]
            ],
            "match_rate": (sampled.compared - sampled.wrong) / sampled.compared * 100 if sampled.compared else 0,
        }


def validate_business_rules(
    table_name: str, *, plan: str | Path | None = None, batch_id: str | None = None
) -> list[dict[str, Any]]:
    """Compare the groups of the plan's `checks` on both sides.

    Returns:
        One entry for each group that differs: `rule`; `tenant`, the group; `oracle` and `sf`, None where a side has no
        value, and the words `(no such group)` where it lacks the group; `status`, FAIL. A rule that could not be
        checked has the status NOT_CHECKED, and the reason for `tenant`.
    """
    with _opened(table_name, None, plan, batch_id, ValidateSettings(levels=(4,))) as (world, table):
        checks: list[Check] = []
        if needed_fields(table.shape):
            checks += group_checks(table.sides(), table.shape, examples_max=GROUPS_MAX)
        checks += query_checks(world, table.shape, examples_max=GROUPS_MAX)
    found: list[dict[str, Any]] = []
    for check in checks:
        if check.status in (CheckStatus.NOT_CHECKED, CheckStatus.DRIFT):
            found.append(
                {"rule": check.name, "tenant": check.reason, "oracle": None, "sf": None, "status": "NOT_CHECKED"}
            )
        found += [
            {
                "rule": check.name,
                "tenant": one.key,
                "oracle": _value(one.source),
                "sf": _value(one.target),
                "status": "FAIL",
            }
            for one in check.examples
        ]
    return found


def _value(text: str | None) -> Decimal | str | None:
    return text if text is None or text.startswith("(") else Decimal(text)


@contextmanager
def _opened(
    table_name: str,
    sf_object: str | None,
    plan: str | Path | None,
    batch_id: str | None,
    asked: ValidateSettings,
) -> Iterator[tuple[ValidateWorld, TableValidation]]:
    file = Path(plan or os.environ.get("FORCELIFT_PLAN") or "forcelift.yaml")
    with open_world(file, batch_id, replace(asked, tables=(table_name,))) as world:
        if table_name not in {row.table_name for row in world.audit.tables(world.batch.batch_id)}:
            raise StateConflict(
                f"batch `{world.batch.batch_id}` did not load table `{table_name}`",
                state="nothing was compared",
                hint="name a batch that did, by `batch_id`",
            )
        with TableValidation(world, table_name) as table:
            if sf_object is not None and sf_object.lower() != table.shape.object.lower():
                raise UsageError(
                    f"the plan loads `{table_name}` into `{table.shape.object}`, not `{sf_object}`",
                    state="nothing was compared",
                    hint="name the plan's object",
                )
            yield world, table
