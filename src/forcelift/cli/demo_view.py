"""The demo as a person sees it: what is made, how the run goes, what it proves, what to do next."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from forcelift.account.summary import BatchSummary
from forcelift.cli.output import count, data, duration, notes, plural, table_lines
from forcelift.cli.running import show_end, show_what_went_wrong, watched_run
from forcelift.demo.data import PACKAGE, source_counts
from forcelift.demo.folder import SCHEMA, DemoFolder, prepare_folder
from forcelift.demo.proof import Finding, ObjectCount, check_findings, count_objects, is_as_meant
from forcelift.errors import ExitCode, StateConflict
from forcelift.migration.running import RunOptions, open_recorded


def run_demo(path: Path, *, fresh: bool, debug: bool) -> int:
    """Prepare, run, prove; returns the exit code."""
    console, result = notes(), data()
    began = time.monotonic()
    folder = prepare_folder(path, fresh=fresh)
    counts = source_counts(folder.database)
    console.print(f"{folder.database}: {plural(sum(counts.values()), 'row')} from the package {PACKAGE}")
    console.print(f"{folder.path / SCHEMA}: the objects of the org; {folder.plan}: the plan")
    options = RunOptions(resume=_unfinished(folder))
    if options.resume is not None:
        console.print("an earlier demo was stopped; going on with its batch")
    ended = watched_run(folder.plan, options, console)
    summary = ended.summary
    show_end(result, ended, resumed=options.resume is not None)
    if summary.exit_code not in (ExitCode.DONE, ExitCode.ROWS_REFUSED):
        show_what_went_wrong(console, summary, folder.plan, debug=debug)
        return summary.exit_code
    objects, findings = count_objects(folder, summary), check_findings(folder, summary)
    _show_proof(result, objects, findings)
    meant = is_as_meant(summary, objects, findings)
    result.print()
    if meant:
        result.print(f"The demo came out as it is meant to, in {duration(time.monotonic() - began)}.", style="bold")
    else:
        result.print("The demo did not come out as it is meant to: see the lines marked DIFFERS.", style="bold red")
        result.print(f"If you changed {folder.plan}, that may be why; `--fresh` begins anew.")
    _show_next(result, folder, summary)
    return ExitCode.DONE if meant else ExitCode.ROWS_REFUSED


def _unfinished(folder: DemoFolder) -> str | None:
    """The batch that an earlier demo left unfinished, dry runs apart; None if there is none."""
    try:
        with open_recorded(folder.plan) as (loaded, state):
            batch = state.audit.newest_batch(loaded.plan.project)
    except StateConflict:
        return None  # the plan never ran: there is no audit database yet
    return batch.batch_id if batch is not None and batch.state != "done" and batch.mode != "dry_run" else None


def _show_proof(console: Console, objects: Sequence[ObjectCount], findings: Sequence[Finding]) -> None:
    console.print()
    rows = [
        (one.soql, count(one.in_org), count(one.in_audit_log), "equal" if one.is_equal else "DIFFERS")
        for one in objects
    ]
    for line in table_lines(("asked of the org over HTTP", "org", "audit log", ""), rows, left=(0, 3)):
        console.print(line)
    console.print()
    for finding in findings:
        verdict = "" if finding.is_equal else f"   DIFFERS: the batch counted {finding.in_batch:,}"
        console.print(f"{finding.in_source:>7,}  {finding.sentence}{verdict}")


def _show_next(console: Console, folder: DemoFolder, summary: BatchSummary) -> None:
    plan, org = folder.plan, folder.org
    console.print()
    console.print("what to do next", style="bold")
    for what, command in (
        ("look at the batch", f"forcelift status --plan {plan}"),
        ("run it again: 0 created, all updated; exit code 1, as rows are refused", f"forcelift run --plan {plan}"),
        ("what a code means", "forcelift explain REJECTED_MISSING_PARENT"),
        ("prove every field of every record", f"forcelift validate --level 5 --plan {plan}"),
        ("see what undoing it would do", f"forcelift rollback {summary.batch.batch_id} --plan {plan}"),
        ("is the journal whole", f"forcelift audit verify --plan {plan}"),
        ("serve the org, and ask it yourself", f"forcelift twin serve --data {org} --port 8765"),
    ):
        console.print(f"  {what}")
        console.print(f"    {command}")
    console.print(
        "    curl -sG http://127.0.0.1:8765/services/data/v66.0/query -H 'Authorization: Bearer <access_token>' \\"
    )
    console.print("      --data-urlencode 'q=SELECT Name, Plane__r.Model__c FROM Flight__c LIMIT 3'")
    console.print("    (ACCESS_TOKEN stands in the line that `twin serve` prints)")
    console.print("  the rows that were refused, in the audit database")
    console.print(
        f"    sqlite3 {folder.path / 'state' / 'audit.db'} "
        '"SELECT RECORD_ID, SF_ERROR_MESSAGE FROM MIGRATION_FAILED_RECORDS LIMIT 3"'
    )
