"""How checks share lines on the terminal."""

from __future__ import annotations

from forcelift.after.validate.checks import Check, CheckStatus
from forcelift.cli.validate_view import _by_line, _sum_up


def make_check(level: int, name: str, *, table: str = "sales", failed: bool = False) -> Check:
    status = CheckStatus.FAILED if failed else CheckStatus.PASSED
    return Check(level=level, table=table, name=name, status=status)


def test_equal_aggregates_of_a_table_share_a_line_and_others_do_not() -> None:
    checks = [
        make_check(1, "records"),
        make_check(2, "sum of Amount__c"),
        make_check(2, "average of Amount__c"),
        make_check(2, "sum of Tax__c", failed=True),
        make_check(2, "values of Tax__c"),
        make_check(2, "sum of Size__c", table="tenants"),
        make_check(2, "values of Size__c", table="tenants"),
        make_check(3, "sampled records"),
    ]
    lines = _by_line(checks)
    assert [len(line) for line in lines] == [1, 2, 1, 1, 2, 1]
    assert [check for line in lines for check in line] == checks
    assert _sum_up(lines[1])[2] == "2 figures of 1 field"
