"""How `forcelift status` looks: the batches, and one of them in full."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from forcelift.account.recorded import BatchStatus
from forcelift.audit import OrgState
from forcelift.audit.records import Batch, BatchState, jobs_at_once
from forcelift.cli.options import again
from forcelift.cli.output import duration, plural, table_lines
from forcelift.cli.report import other_snapshots_line, show_summary, unfinished_line

BATCHES_SHOWN = 10
STALE_BEAT_S = 60
DEFAULT_NAME = "prepare"  # of `forcelift prepare`, spelt here so that a look at the status imports no org
_ENDED = ("SUCCESS", "PARTIAL", "FAILED", "SKIPPED", "ROLLED_BACK")


def status_document(seen: BatchStatus, plan_file: Path) -> dict[str, Any]:
    """The document of `status --json`; described in docs/reference/cli.md."""
    holder = seen.holder
    return {
        "batches": [_batch_document(batch, seen.samples.get(batch.batch_id)) for batch in seen.batches],
        "batch": seen.summary.document(),
        "at_work": None
        if holder is None
        else {
            "owner": holder.owner,
            "since": holder.since.isoformat(),
            "heartbeat": holder.heartbeat.isoformat(),
        },
        "runners": [
            {"owner": one.owner, "since": one.since.isoformat(), "heartbeat": one.heartbeat.isoformat()}
            for one in seen.runners
        ],
        "waiting_for": seen.waiting_for,
        "stop_asked": seen.control.stop or seen.control.stop_now,
        "stop_reason": seen.asked["stop"].reason if "stop" in seen.asked else None,
        "paused": seen.control.paused,
        "pause_reason": seen.asked["pause"].reason if seen.control.paused and "pause" in seen.asked else None,
        "throttle_jobs": seen.control.throttle_jobs,
        "throttle_reason": (
            seen.asked["throttle"].reason
            if seen.control.throttle_jobs is not None and "throttle" in seen.asked
            else None
        ),
        "chunk_rates": [
            {
                "table": row.table_name,
                "avg_records_per_sec": row.avg_records_per_sec,
                "avg_chunk_duration_s": row.avg_chunk_duration,
                "max_chunk_duration_s": row.max_chunk_duration,
            }
            for row in seen.performance
        ],
        "resume_command": _resume(seen, plan_file),
        "automations_off": [off_document(one) for one in seen.switched_off],
        "sign_offs": [
            {
                "phase": one.phase,
                "role": one.role,
                "name": one.name,
                "at": one.at.isoformat(),
                "is_stale": one.is_stale,
                "why_stale": one.why_stale,
            }
            for one in seen.sign_offs
        ],
    }


def off_document(one: OrgState) -> dict[str, Any]:
    """One automation that is, or may be, switched off."""
    return {
        "org_id": one.org_id,
        "kind": one.kind,
        "name": one.name,
        "object": one.object,
        "off_since": (one.off_at or one.taken_at).isoformat(),
        "verified": one.off_at is not None,
        "by": one.taken_by,
        "held_by": [
            {"kind": holder.kind, "name": holder.name, "by": holder.by, "since": _iso(holder.since)}
            for holder in one.holders
        ],
        "stuck": one.stuck,
    }


def _iso(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment is not None else None


def show_switched_off(console: Console, states: Sequence[OrgState], plan_file: Path) -> None:
    """Say loudly what is off, since when and by whom."""
    if not states:
        return
    console.print(Text(f"WARNING: {plural(len(states), 'automation')} of the org switched off", style="bold red"))
    rows = [
        (
            f"{one.kind.replace('_', ' ')} {one.name}",
            f"{(one.off_at or one.taken_at).astimezone(UTC):%Y-%m-%d %H:%M:%S}",
            one.taken_by,
            ", ".join(str(holder) for holder in one.holders) or "nobody",
        )
        for one in states
    ]
    for line in table_lines(("automation", "off since (UTC)", "by", "wanted off by"), rows, left=(0, 1, 2, 3)):
        console.print(line)
    for one in states:
        if one.stuck is not None:
            console.print(f"{one.name} could not be put back: {one.stuck}")
        elif one.off_at is None:
            console.print(f"{one.name} may be off: it was begun, and never read back")
    names = {holder.name for one in states for holder in one.holders if holder.kind == "prepare"} - {DEFAULT_NAME}
    which = "" if not names else f" --name {min(names)}" if len(names) == 1 else " --all"
    console.print(f"put back by:  {again(f'restore{which} --execute', plan_file)}  (batches at work do it themselves)")
    console.print()


def _batch_document(batch: Batch, sample_percent: str | None) -> dict[str, Any]:
    return {
        "batch_id": batch.batch_id,
        "mode": batch.mode.value,
        "sample_percent": sample_percent,
        "state": batch.state.value,
        "started_at": batch.started_at.isoformat(),
        "ended_at": batch.ended_at.isoformat() if batch.ended_at else None,
        "created_by": batch.created_by,
    }


def _resume(seen: BatchStatus, plan_file: Path) -> str | None:
    batch = seen.summary.batch
    if batch.state is BatchState.DONE or seen.holder is not None:
        return None
    return again(f"run --resume {batch.batch_id}", plan_file)


def show_batches(console: Console, batches: tuple[Batch, ...], samples: Mapping[str, str]) -> None:
    newest = batches[-BATCHES_SHOWN:]
    rows = [
        (
            batch.batch_id,
            batch.mode.value.replace("_", " ")
            + (f", {samples[batch.batch_id]} %" if batch.batch_id in samples else ""),
            batch.state.value,
            f"{batch.started_at.astimezone(UTC):%Y-%m-%d %H:%M:%S}",
            duration((batch.ended_at - batch.started_at).total_seconds()) if batch.ended_at else "-",
        )
        for batch in newest
    ]
    for line in table_lines(("batch", "mode", "state", "began (UTC)", "took"), rows, left=(0, 1, 2, 3)):
        console.print(line)
    if len(batches) > len(newest):
        console.print(f"and {len(batches) - len(newest)} older ones; `--json` lists them all")
    console.print()


def show_batch(console: Console, seen: BatchStatus, plan_file: Path) -> None:
    summary = seen.summary
    batch = summary.batch
    console.print(Text.assemble(("batch ", "bold"), (batch.batch_id, "bold"), f": {_state_words(seen)}"))
    for line in _asked_lines(seen):
        console.print(line)
    for one in seen.runners if len(seen.runners) > 1 else ():
        quiet_s = (datetime.now(UTC) - one.heartbeat).total_seconds()
        console.print(
            f"  {one.owner}, since {one.since.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC, "
            f"last sign of life {duration(max(0.0, quiet_s))} ago"
        )
    if seen.waiting_for:
        console.print(f"waiting: {seen.waiting_for}")
    console.print()
    if summary.tables:
        _show_chunks(console, seen)
        console.print()
    show_summary(console, summary)
    if (later := other_snapshots_line(summary)) is not None:
        console.print()
        console.print(later)
    if (unfinished := unfinished_line(summary)) is not None:
        console.print()
        console.print(unfinished)
    if (resume := _resume(seen, plan_file)) is not None:
        console.print(f"go on with:  {resume}")


def _asked_lines(seen: BatchStatus) -> Iterator[str]:
    """What operators asked for, each with who and why."""
    control, asked = seen.control, seen.asked
    if control.paused and (pause := asked.get("pause")) is not None:
        yield f"paused by {pause.by}: {pause.reason}"
    if control.throttle_jobs is not None and (throttle := asked.get("throttle")) is not None:
        yield f"{jobs_at_once(control.throttle_jobs)}, as {throttle.by} asked: {throttle.reason}"
    if (control.stop or control.stop_now) and (stop := asked.get("stop")) is not None:
        yield f"asked to {'abort' if control.stop_now else 'stop'} by {stop.by}: {stop.reason}"


def _state_words(seen: BatchStatus) -> str:
    batch, holder = seen.summary.batch, seen.holder
    kind = {"dry_run": "dry run, ", "extract_first": "extract first, "}.get(batch.mode.value, "")
    if holder is not None:
        quiet_s = (datetime.now(UTC) - holder.heartbeat).total_seconds()
        beat = f"last sign of life {duration(max(0.0, quiet_s))} ago" if quiet_s > STALE_BEAT_S else "alive"
        if len(seen.runners) > 1:
            return f"{kind}running, by {len(seen.runners)} processes:"
        return f"{kind}running, by {holder.owner} ({beat})"
    if batch.state is BatchState.RUNNING:
        return f"{kind}not finished, and no process is at work on it"
    return f"{kind}{batch.state.value}"


def _show_chunks(console: Console, seen: BatchStatus) -> None:
    rows = []
    # The rate is of chunks that have ended; of a table that stands still it would look like one that is going on.
    is_held = seen.holder is not None and (seen.control.paused or seen.waiting_for is not None)
    for table in seen.summary.tables:
        stands = is_held and any(status not in _ENDED for status in table.chunks_by_status)
        words = ", ".join(f"{chunks} {status}" for status, chunks in sorted(table.chunks_by_status.items()))
        rows.append(
            (
                table.table,
                words,
                duration(table.seconds) if table.seconds else "-",
                "stands still" if stands else f"{table.rows_per_second:,.0f}" if table.seconds else "-",
            )
        )
    if rows:
        for line in table_lines(("table", "chunks", "took", "rows/s"), rows, left=(0, 1)):
            console.print(line)
