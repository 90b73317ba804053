"""The org's answers to one job: fetched as streams, read as columns, joined to what was sent by key, never by position.

Source: salesforce-api.md 3.7; result files come in any order, numbers in them are written anew, an empty set still has
its header, and success + failed + unprocessed is the number of rows uploaded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
from msgspec import Struct

from forcelift.audit.records import Job
from forcelift.errors import OrgNotFound, TargetError
from forcelift.jobs.csv_blocks import header_of, whole_rows
from forcelift.jobs.echoes import without_values
from forcelift.jobs.messages import Tally
from forcelift.jobs.places import KeyPlaces
from forcelift.jobs.work import TableWork
from forcelift.protocols.org import IngestJob, JobState, Org, ResultKind
from forcelift.protocols.refusals import RefusalReader
from forcelift.rules import canonical_from_org, normalised_key

ANSWERS = pl.Schema(
    {
        "key": pl.String(),
        "kind": pl.String(),  # created, updated, failed, open, unknown
        "id": pl.String(),
        "code": pl.String(),
        "message": pl.String(),
        "fields": pl.String(),
        "transient": pl.Boolean(),
        "locked": pl.Boolean(),
        "evidence": pl.String(),
        "job": pl.Int64(),
    }
)

KIND = pl.Enum(["created", "updated", "failed", "open", "unknown"])
"""`kind` while answers are gathered: a byte where a text takes sixteen."""

EVIDENCE = pl.Enum(["result"])
"""`evidence` likewise."""

NOT_SENT = "NOT_SENT"
"""Code of rows that were staged and never sent, because their batch was rolled back before."""

TOLD_BYTES = 4_000_000
"""So much of a result file is joined to the keys at once: for less, to begin a step costs more than to do it."""

FindKeys = Callable[[list[str]], Iterable[tuple[str, str]]]
"""Given keys, those that the org holds: pairs of Id and key as stored."""


class Gathered(Struct, frozen=True, kw_only=True):
    """The answers of one job as they were fetched. Given the form of `ANSWERS` all at once, they took twice the memory.

    Attributes:
        job_no: Our number of the job.
        lines: One line for each row sent, with columns of `ANSWERS`; what they lack is null.
        keys, order: The keys sent, and where in `lines` the answer to each stands; None where lines have their keys.
    """

    job_no: int
    lines: pl.DataFrame
    keys: pl.Series | None = None
    order: pl.Series | None = None

    def slices(self, rows: int) -> Iterator[pl.DataFrame]:
        """The answers in the form of `ANSWERS`, so many at a time, in the order of the rows sent if that is known."""
        for start in range(0, max(self.lines.height, 1), rows):
            if self.keys is None or self.order is None:
                here = self.lines[start : start + rows]
            else:
                here = self.lines[self.order[start : start + rows]]
                here = here.insert_column(0, self.keys[start : start + rows])
            yield _shape(here).with_columns(job=pl.lit(self.job_no, dtype=pl.Int64))


class AnswerCollector:
    """Fetches and reads the answers of one job.

    Args:
        keys: The keys that were sent, one per row, distinct.
        find: Looks keys up in the org; asked only for rows that no result file mentions.
        turn: Held while answers are joined to keys, never while they are fetched.
    """

    def __init__(
        self,
        *,
        org: Org,
        refusals: RefusalReader,
        work: TableWork,
        keys: pl.Series,
        find: FindKeys,
        turn: AbstractContextManager[object] | None = None,
    ) -> None:
        self._org, self._refusals, self._work = org, refusals, work
        self._keys, self._find = keys.alias("key"), find
        self._turn = turn or nullcontext()

    def collect(self, job: Job, seen: IngestJob | None) -> Gathered:
        """All answers, one line for each row sent; `seen` is None where the org no longer knows the job."""
        frames: list[pl.DataFrame] = []
        if seen is not None and job.sf_id is not None:
            places = KeyPlaces(self._keys)
            for kind in _kinds(seen):
                if sum(frame.height for frame in frames) >= self._keys.len():
                    break
                try:
                    frames.append(self._read(job.sf_id, kind, places))
                except OrgNotFound:
                    break  # results are kept for 7 days; what they held is asked for by key below
            del places
        answers = pl.concat([pl.DataFrame(schema={"place": pl.UInt32(), "kind": KIND}), *frames], how="diagonal")
        frames.clear()
        answered = answers["place"]
        self._refuse_strangers(job, answered)
        if seen is not None and seen.records_processed is None and answers.height < self._keys.len():
            seen = self._with_counters(seen)
        # A job that ended without a row has written none, wherever the records of these keys come from.
        touched_none = seen is not None and seen.state.is_terminal and seen.records_processed == 0
        if answered.len() < self._keys.len():
            missing = self._missing(answered, ask_org=not touched_none)
            answers = answers.drop("place").insert_column(0, self._keys.gather(answered))
            return Gathered(job_no=job.job_no, lines=pl.concat([_shape(answers), missing]))
        # In the order of the rows sent, so that settling finds them without another join.
        with self._turn:
            lines = pl.int_range(answered.len(), dtype=pl.get_index_type(), eager=True)
            order = lines.clone().scatter(answered, lines)
            scattered = answers.drop("place").get_columns()
            del answers, answered, lines
            # One column after the other, each let go: all at once, they would be held twice.
            whole = pl.DataFrame([scattered.pop(0).rechunk() for _ in range(len(scattered))])
            return Gathered(job_no=job.job_no, lines=whole, keys=self._keys, order=order)

    def _with_counters(self, seen: IngestJob) -> IngestJob | None:
        """A job that a list showed, which leaves the counters out; None where the org has forgotten it since."""
        try:
            return self._org.get_job(seen.id)
        except OrgNotFound:
            return None

    def _read(self, sf_id: str, kind: ResultKind, places: KeyPlaces) -> pl.DataFrame:
        """One result file, read as it comes: what was read of one that breaks off is dropped with the error."""
        wanted = {ResultKind.SUCCESSFUL: ["sf__Id", "sf__Created"], ResultKind.FAILED: ["sf__Id", "sf__Error"]}
        columns = [*wanted.get(kind, []), self._work.key_field.name]
        personal: list[str] = []

        def read() -> Iterator[pl.DataFrame]:
            is_first = True
            for block in whole_rows(self._org.results(sf_id, kind)):
                if is_first:
                    is_first = False
                    named = set(header_of(block))
                    if set(columns) - named:
                        if pl.read_csv(block, n_rows=1, infer_schema=False, raise_if_empty=False).height == 0:
                            return  # of a job that never took a row the org does not know our columns
                        raise _lacking(sf_id, kind, set(columns) - named)
                    if kind is ResultKind.FAILED:
                        personal.extend(name for name in self._work.personal_fields if name in named)
                yield pl.read_csv(block, columns=list(dict.fromkeys([*columns, *personal])), infer_schema=False)

        frames = [self._told(kind, frame, personal, places) for frame in _together(read())]
        if not frames:
            return pl.DataFrame(schema={"place": pl.UInt32()})
        return pl.concat(frames).with_columns(evidence=pl.lit("result", dtype=EVIDENCE))

    def _told(self, kind: ResultKind, frame: pl.DataFrame, personal: list[str], places: KeyPlaces) -> pl.DataFrame:
        """What a part of a result file says: for each row its place among those sent, and columns of `ANSWERS`."""
        place = places.of(canonical_from_org(self._work.key_field, frame[self._work.key_field.name]))
        if kind is ResultKind.SUCCESSFUL:
            word = frame["sf__Created"]
            created = word == "true"
            if not (created | (word == "false")).all():
                created = word.str.to_lowercase() == "true"
            told = pl.when(created).then(pl.lit("created", dtype=KIND)).otherwise(pl.lit("updated", dtype=KIND))
            return frame.select(place, kind=told, id="sf__Id")
        if kind is ResultKind.UNPROCESSED:
            return frame.select(place, kind=pl.lit("open", dtype=KIND))
        errors = self._refusals.read(frame["sf__Error"])
        messages = without_values(errors["message"], rows=frame, columns=personal, null_text=self._work.null_text)
        return frame.select(
            place,
            *errors.with_columns(messages).select("code", "message", "fields", "transient", "locked"),
            kind=pl.lit("failed", dtype=KIND),
            id=pl.col("sf__Id").replace("", None),
        )

    def _refuse_strangers(self, job: Job, places: pl.Series) -> None:
        """An answer that fits no row, or two for one row, means that the join cannot be trusted.

        Args:
            places: Of the answers, among the keys sent; null for one that has none.
        """
        strangers = places.null_count()
        is_answered = pl.repeat(False, self._keys.len(), dtype=pl.Boolean, eager=True)
        doubled = places.len() - strangers - int(is_answered.scatter(places.drop_nulls(), True).sum())
        if strangers or doubled:
            raise TargetError(
                f"the results of Salesforce job `{job.sf_id}` do not fit what was sent: {strangers:,} answers have no "
                f"row and {doubled:,} rows have more than one answer",
                state="the chunk is left as it is; nothing of these results was recorded",
                hint=f"look at the external ID field `{self._work.key_field.name}`: its values come back changed",
            )

    def _missing(self, answered: pl.Series, *, ask_org: bool) -> pl.DataFrame:
        """Rows without an answer: those that the org holds nevertheless are `unknown`, the others still to be sent."""
        is_missing = pl.repeat(True, self._keys.len(), dtype=pl.Boolean, eager=True).scatter(answered, False)
        missing = self._keys.filter(is_missing).to_frame()
        if not ask_org:
            return _shape(missing.with_columns(kind=pl.lit("open"), evidence=pl.lit("result")))
        field = self._work.key_field
        found = pl.DataFrame(
            list(self._find(missing["key"].to_list())), schema={"id": pl.String(), "stored": pl.String()}, orient="row"
        )
        norm = normalised_key(field, canonical_from_org(field, found["stored"])).alias("norm")
        held = found.select("id").with_columns(norm).unique("norm")
        return _shape(
            missing.with_columns(normalised_key(field, missing["key"]).alias("norm"))
            .join(held, on="norm", how="left")
            .drop("norm")
            .with_columns(
                kind=pl.when(pl.col("id").is_null()).then(pl.lit("open")).otherwise(pl.lit("unknown")),
                evidence=pl.lit("queried"),
            )
        )


def _lacking(sf_id: str, kind: ResultKind, columns: set[str]) -> TargetError:
    return TargetError(
        f"the {kind.value} of Salesforce job `{sf_id}` lack the column {', '.join(sorted(columns))}",
        state="nothing of these results was recorded",
        hint="go on with `forcelift run --resume`; if it comes again, tell us the API version of the org",
    )


def _together(frames: Iterable[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    """Frames of at least `TOLD_BYTES` but for the last, made of several if they are smaller."""
    waiting: list[pl.DataFrame] = []
    size = 0.0
    for frame in frames:
        waiting.append(frame)
        size += frame.estimated_size()
        if size >= TOLD_BYTES:
            yield pl.concat(waiting, rechunk=True)
            waiting.clear()
            size = 0.0
    if waiting:
        yield pl.concat(waiting, rechunk=True)


def _kinds(seen: IngestJob) -> list[ResultKind]:
    """The result files that may hold rows, in the order in which they are fetched.

    Only a job that ended by itself has counters that stand still, and lists of jobs leave them out.
    """
    kinds = [ResultKind.SUCCESSFUL, ResultKind.FAILED, ResultKind.UNPROCESSED]
    if seen.state is JobState.JOB_COMPLETE and seen.records_processed is not None and seen.records_failed is not None:
        if seen.records_failed == 0:
            kinds.remove(ResultKind.FAILED)
        if seen.records_failed >= seen.records_processed:
            kinds.remove(ResultKind.SUCCESSFUL)
    return kinds


def _shape(frame: pl.DataFrame) -> pl.DataFrame:
    """Bring a frame into the form of `ANSWERS`; what it lacks is null, and false where it is a flag."""
    columns = []
    for name, kind in ANSWERS.items():
        is_flag = kind == pl.Boolean()
        if name not in frame.columns:
            columns.append(pl.lit(False if is_flag else None, dtype=kind).alias(name))
        else:
            columns.append(pl.col(name).fill_null(False) if is_flag else pl.col(name).cast(kind))
    return frame.with_columns(columns).select(ANSWERS.names())


def answers_writer(path: Path) -> pq.ParquetWriter:
    """A file for answers, slice by slice. It is read once more and then removed: packing would cost more than it saves.

    Returns: A writer of the columns of `ANSWERS`, to be closed by its `with` block.
    """
    schema = pl.DataFrame(schema=ANSWERS).to_arrow(compat_level=pl.CompatLevel.oldest()).schema
    words = [name for name in ANSWERS if name not in ("key", "id", "message")]
    return pq.ParquetWriter(path, schema, compression="none", use_dictionary=words, write_statistics=False)


def doubt_duplicates(answers: pl.DataFrame) -> pl.DataFrame:
    """Answers to an insert that was sent again: a duplicate may be the row's own record, from the time before."""
    own = (pl.col("kind") == "failed") & (pl.col("code") == "DUPLICATE_VALUE")
    return answers.with_columns(kind=pl.when(own).then(pl.lit("unknown")).otherwise("kind"))


def tally(answers: pl.DataFrame, *, job_error: str | None, passes: bool) -> Tally:
    """Count the answers of one job, or a part of them."""
    told = answers["kind"]
    # Five looks at a short text take a sixth of what groups of it do.
    kinds = {kind: int((told == kind).sum()) for kind in KIND.categories}
    return Tally(
        sent=answers.height,
        **kinds,
        transient=int(answers["transient"].sum()),
        locked=int(answers["locked"].sum()),
        job_error=job_error,
        job_error_transient=passes,
    )


def merge_answers(answers: Iterator[pl.DataFrame] | Iterable[pl.DataFrame]) -> pl.DataFrame:
    """One line per key from the answers of several jobs, given oldest first.

    The last answer stands, but what was ever created stays created, and an Id once given is kept. Adds the column
    `was_created`, and `was_lost` where an answer was gone while the record stood in the org.
    """
    frames = [frame.with_columns(order=pl.lit(number)) for number, frame in enumerate(answers)]
    if not frames:
        return pl.DataFrame(schema={**ANSWERS, "was_created": pl.Boolean(), "was_lost": pl.Boolean()})
    together = pl.concat(frames).with_columns(
        was_created=pl.col("kind") == "created", was_lost=pl.col("kind") == "unknown"
    )
    names = [*ANSWERS.names(), "was_created", "was_lost"]
    if len(frames) == 1:  # one job answers once for each key
        return together.select(names)
    # Few rows are sent twice, and merging costs many times what passing on does.
    is_repeated = together["key"].is_duplicated()
    merged = _merge_repeated(together.filter(is_repeated))
    return pl.concat([together.filter(~is_repeated).select(names), merged.select(names)])


def _merge_repeated(answers: pl.DataFrame) -> pl.DataFrame:
    last = {name: pl.col(name).sort_by("order").last() for name in ANSWERS.names() if name not in ("key", "id")}
    merged = (
        answers.lazy()
        .group_by("key")
        .agg(
            id=pl.col("id").sort_by("order").drop_nulls().last(),
            was_created=pl.col("was_created").any(),
            was_lost=pl.col("was_lost").any(),
            **last,
        )
        .collect()
    )
    sticky = pl.when((pl.col("kind") == "updated") & pl.col("was_created")).then(pl.lit("created"))
    return merged.with_columns(kind=sticky.otherwise(pl.col("kind")))


def prove_created(answers: pl.DataFrame, absent: pl.Series) -> pl.DataFrame:
    """Settle what a lost answer left in doubt: whose key stood for no record before the chunk's first job, we created.

    Args:
        answers: As `merge_answers` gives them.
        absent: Keys of the chunk that its before-image does not hold.
    """
    proved = pl.col("was_lost") & pl.col("kind").is_in(["updated", "unknown"]) & pl.col("key").is_in(absent.implode())
    return answers.with_columns(
        kind=pl.when(proved).then(pl.lit("created")).otherwise("kind"),
        was_created=pl.col("was_created") | proved,
        evidence=pl.when(proved).then(pl.lit("queried")).otherwise("evidence"),
    )


def refuse_unsent(answers: pl.DataFrame, keys: pl.Series) -> pl.DataFrame:
    """Answers in which every row of a chunk that the org never took is told as refused.

    Args:
        answers: As `merge_answers` gives them.
        keys: Of all rows that were to be sent.
    """
    taken = answers.filter(pl.col("kind") != "open")
    missing = keys.alias("key").to_frame().join(taken.select("key"), on="key", how="anti")
    told = missing.with_columns(
        kind=pl.lit("failed"), code=pl.lit(NOT_SENT), message=pl.lit("the batch was rolled back before it was sent")
    )
    filled = _shape(told.with_columns(evidence=pl.lit("staged"))).with_columns(was_created=False, was_lost=False)
    return pl.concat([taken, filled.select(taken.columns)])
