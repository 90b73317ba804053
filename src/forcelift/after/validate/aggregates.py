"""Level 2: sum, average, smallest, largest and number of values of each number and date field, in exact decimals.

Both sides are added up over the same records. The org's side comes from one bulk query of the object: SOQL's own SUM is
a binary double, counts other people's records too, and times out on large objects.
"""

from __future__ import annotations

from decimal import Decimal, localcontext

from msgspec import Struct

from forcelift.after.validate.both_sides import BothSides, columns_by_form, decimal, drift_check, number, quoted
from forcelift.after.validate.checks import DIGITS, Check, CheckStatus, minus, plain
from forcelift.after.validate.org_rows import OrgColumn, OrgShape
from forcelift.rules.column import Form


class Totals(Struct, frozen=True, kw_only=True):
    """One side of a number field. None where there is no value at all, which is not 0."""

    values: int
    total: Decimal | None
    smallest: Decimal | None
    largest: Decimal | None

    @property
    def average(self) -> Decimal | None:
        """To 20 decimals at least."""
        if self.total is None or not self.values:
            return None
        with localcontext(prec=DIGITS):
            return self.total / self.values


def totals(sides: BothSides, side: str, column: OrgColumn) -> Totals:
    """Add up one field on one side, `sent` or `org`."""
    name = quoted(column.name)
    value = number(column)
    values, total, smallest, largest = sides.ask(
        f"SELECT count({name}), sum({value}), min({value}), max({value}) FROM {side}"
    )[0]
    return Totals(values=values, total=decimal(total), smallest=decimal(smallest), largest=decimal(largest))


def variance_percent(source: Decimal | None, target: Decimal | None) -> Decimal | None:
    """How far the target lies from the source, in percent of the source's absolute value; None if that says nothing."""
    if source == target:
        return Decimal(0)
    if source is None or target is None or source == 0:
        return None
    with localcontext(prec=DIGITS):
        return abs(target - source) * 100 / abs(source)


def aggregate_checks(sides: BothSides, shape: OrgShape, limit: Decimal) -> list[Check]:
    """The checks of level 2."""
    if sides.is_unknown:
        return drift_check(2, shape, sides)
    table = shape.work.plan.table
    columns = columns_by_form(shape)
    checks: list[Check] = []
    for column in columns[Form.NUMBER]:
        sent, org = totals(sides, "sent", column), totals(sides, "org", column)
        checks += [
            _near(table, f"sum of {column.name}", sent.total, org.total, limit),
            _near(table, f"average of {column.name}", sent.average, org.average, limit),
            _same(table, f"smallest {column.name}", _text(sent.smallest), _text(org.smallest)),
            _same(table, f"largest {column.name}", _text(sent.largest), _text(org.largest)),
            _same(table, f"values of {column.name}", str(sent.values), str(org.values)),
        ]
    for column in [*columns[Form.DATE], *columns[Form.DATETIME]]:
        name = quoted(column.name)
        query = f"SELECT min({name}), max({name}), count({name}) FROM "
        (sent_row,), (org_row,) = sides.ask(query + "sent"), sides.ask(query + "org")
        labels = (f"earliest {column.name}", f"latest {column.name}", f"values of {column.name}")
        for label, source, target in zip(labels, sent_row, org_row, strict=True):
            checks.append(
                _same(
                    table,
                    label,
                    None if source is None else str(source),
                    None if target is None else str(target),
                )
            )
    if not checks:
        reason = "the plan fills no number, date or datetime field"
        checks = [Check(level=2, table=table, name="aggregates", status=CheckStatus.NOT_CHECKED, reason=reason)]
    return [*checks, *drift_check(2, shape, sides)]


def _near(table: str, name: str, source: Decimal | None, target: Decimal | None, limit: Decimal) -> Check:
    """A variance below the limit passes, and is told."""
    variance = variance_percent(source, target)
    passed = variance is not None and (variance == 0 or variance < limit)
    reason = None
    if variance is None:
        reason = "one side has no value" if source is None or target is None else "the source's is 0"
    elif variance:
        reason = f"{plain(variance.quantize(Decimal('0.000001')))} % apart; less than {plain(limit)} % passes"
    return Check(
        level=2,
        table=table,
        name=name,
        status=CheckStatus.PASSED if passed else CheckStatus.FAILED,
        source=_text(source),
        target=_text(target),
        difference=_text(minus(target, source)) if source is not None and target is not None else None,
        reason=reason,
    )


def _same(table: str, name: str, source: str | None, target: str | None) -> Check:
    status = CheckStatus.PASSED if source == target else CheckStatus.FAILED
    return Check(level=2, table=table, name=name, status=status, source=source, target=target)


def _text(value: Decimal | None) -> str | None:
    if value is None:
        return None
    with localcontext(prec=DIGITS):
        return plain(round(value, 20))
