"""`forcelift report`: the final report of a batch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from forcelift.cli.options import json_option, plan_option
from forcelift.errors import ExitCode

if TYPE_CHECKING:
    from forcelift.after.report import ReportFigures


@click.command()
@plan_option
@click.argument("batch_id", metavar="[BATCH]", required=False)
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write it to this file, which must not be there; on the screen if left out",
)
@json_option
def report(plan_file: Path, batch_id: str | None, out: Path | None, as_json: bool) -> int:
    """Write the final report of a batch

    Markdown in the structure of the checklist's template: statistics, reconciliation, issues, performance, sign-off;
    then rollbacks, and each check of the newest validation. Every figure is from audit database and ledger. Example:

      forcelift report --out report.md

    Ends with 1 unless everything succeeded and no check failed.
    """
    from forcelift.after.report import ReportStatus, markdown
    from forcelift.cli.output import data, print_json
    from forcelift.reporting import report_batch, write_report

    figures = report_batch(plan_file, batch_id)
    digest = write_report(figures, plan_file, out) if out is not None else None
    if as_json:
        print_json(_document(figures, out, digest))
    elif out is None:
        click.echo(markdown(figures), nl=False)
    else:
        data().print(f"{out}: {figures.status.value}, sha256 {digest}")
    return int(ExitCode.DONE if figures.status is ReportStatus.SUCCESS else ExitCode.ROWS_REFUSED)


def _document(figures: ReportFigures, out: Path | None, digest: str | None) -> dict[str, Any]:
    """The document of `report --json`; described in docs/reference/cli.md."""
    speed = figures.performance
    return {
        "batch_id": figures.batch.batch_id,
        "project": figures.batch.project,
        "status": figures.status.value,
        "tables": [
            {name: getattr(one, name) for name in (*one.__dataclass_fields__, "failed")}
            for one in (*figures.tables, figures.total)
        ],
        "reconciliation": [
            {"level": one.level, "check": one.name, "status": one.status.value, "details": one.details}
            for one in figures.reconciled
        ],
        "issues": [
            {
                "table": one.group.table_name,
                "code": one.group.code,
                "rows": one.group.rows,
                "cause": one.cause,
                "remedy": one.remedy,
                "fixed": one.fixed,
            }
            for one in figures.issues
        ],
        "performance": {
            "seconds": round(speed.seconds, 3),
            "rows_per_second": round(speed.average, 1),
            "peak_rows_per_second": round(speed.peak, 1),
            "api_calls": speed.api_calls,
        },
        "rollbacks": len(figures.rollbacks),
        "notes": list(figures.notes),
        "journal_head": figures.head,
        "file": str(out) if out is not None else None,
        "sha256": digest,
    }
