"""Profile one table: its database counts the columns, a scan looks at its keys, and one pass over the rows judges them.

Reads:  figures of all columns, by SQL where the source is a database; the table's slices, of them the columns that the
        plan maps; before that its key columns, where the source does not promise that no key repeats.
Writes: scratch files: decisions on repeated keys, the keys that would be sent, the lookups of a link pass.

What the plan's rules decide is decided by the engine's own compiled rules, so that the numbers are those of a run. Rows
in which they surely find nothing are not cleaned (`rules.gates`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
from msgspec.structs import replace

from forcelift.before.profile.catalogue import CIRCLE, MIXED_ERAS, PERSONAL
from forcelift.before.profile.circles import CircleRows, Circles
from forcelift.before.profile.columns import ColumnLook, column_looks
from forcelift.before.profile.counting import count_columns, how_counted, look_at_sample
from forcelift.before.profile.records import Action, TableProfile
from forcelift.before.profile.repeated import RepeatedRows
from forcelift.before.profile.report import findings_of
from forcelift.before.profile.single_keys import do_rise, is_counted_single, key_number
from forcelift.before.profile.sink import FindingSink, Found
from forcelift.before.profile.slices import Slices, cut
from forcelift.before.profile.world import ProfileWorld
from forcelift.jobs.repeats import Repeats, cannot_repeat, find_repeats
from forcelift.jobs.work import TableWork
from forcelift.protocols.source import Predicate, TableFigures
from forcelift.rules import ChunkCleaner, Cleaned, DuplicateDecisions, ParentKeys, compact, frame_of
from forcelift.rules.findings import Findings
from forcelift.rules.gates import QUIET_CHANGES, rows_to_clean
from forcelift.rules.remedies import PREFIX
from forcelift.rules.texts import TextLook

_LINK_ROWS = 200_000
_JUDGED_ROWS = 25_000
_FEW_OF_BATCH = 2_500  # so few that they are worth a copy, as they would keep the whole batch
_SOFT_RULES = ("negative", "future_date", "buddhist_era")


def observed(work: TableWork) -> tuple[TableWork, frozenset[tuple[str, str]]]:
    """The same table with rules that only look where the plan lets a value pass unseen or would stop the batch.

    Gives also the rules that the plan has as `keep`, by rule and column. What is sent and what is rejected is the same.
    """
    kept: set[tuple[str, str]] = set()
    columns = {}
    for name, column in work.rules.columns.items():
        loose = [rule for rule in _SOFT_RULES if getattr(column.rule, rule) == "keep"]
        kept |= {(rule, column.place.column) for rule in loose}
        rule = column.rule.model_copy(update=dict.fromkeys(loose, "warn")) if loose else column.rule
        columns[name] = replace(column, rule=rule)
    plan = work.plan.model_copy(update={"null_key": "reject"})
    return replace(work, plan=plan, rules=replace(work.rules, plan=plan, columns=columns)), frozenset(kept)


class TableScan:
    """Profiles one table.

    Args:
        parents: For each lookup column that is not a link, the keys of its parents.
        is_parent: Whether another table looks its rows up, so that the keys that would be sent are kept.
        folder: Scratch folder of this table.
    """

    def __init__(
        self, world: ProfileWorld, work: TableWork, *, parents: Mapping[str, ParentKeys], is_parent: bool, folder: Path
    ) -> None:
        self.original = work
        self.work, self._kept = observed(work)
        self._world, self._parents, self._is_parent, self._folder = world, parents, is_parent, folder
        self.accepted_file = folder / "accepted.parquet"
        self.links_file = folder / "links.parquet"
        self.sink = FindingSink(work.plan.table, personal=frozenset(work.rules.personal_columns), folder=world.export)
        self._looks: dict[str, ColumnLook] = {}
        self._figures: TableFigures | None = None
        self._repeated = RepeatedRows(folder, memory_mb=max(64, world.memory_mb // 4))
        self._accepted: pq.ParquetWriter | None = None
        self._links: pq.ParquetWriter | None = None
        self.rows = self.null_keys = self.rejected = self.dropped = self.failed = 0
        self.codes: Counter[str] = Counter()
        self._repeats = Repeats()
        self._slices: Slices | None = None
        self._began = world.clock.monotonic()

    def scan(self) -> None:
        """Read the table."""
        world, work = self._world, self.work
        slices = self._slices = cut(world, work)
        self._figures = figures = count_columns(world, work, slices)
        self._looks = column_looks(world, work, figures)
        look_at_sample(world, work, self._looks)
        decisions = self._decide(slices)
        try:
            for number, predicate in slices.read:
                self._scan_slice(number, predicate, decisions)
            if self._is_parent:
                # The file is there even if no row would be sent.
                self.write_accepted(pl.Series("key", [], dtype=pl.String))
                if slices.sample is not None:
                    self._all_keys(slices)
        finally:
            for writer in (self._accepted, self._links):
                if writer is not None:
                    writer.close()

    def _decide(self, slices: Slices) -> DuplicateDecisions | None:
        if self._no_key_repeats(slices):
            return None
        path = self._folder / "duplicates.parquet"

        def save(write: Callable[[Path], object]) -> None:
            write(path)

        self._repeats = find_repeats(
            self.work,
            slices.read,
            self._frames,
            save,
            scratch=self._folder,
            memory_mb=max(64, self._world.memory_mb // 4),
        )
        return DuplicateDecisions.load(path) if self._repeats.keys else None

    def _no_key_repeats(self, slices: Slices) -> bool:
        name = key_number(self.work)
        if name is None or cannot_repeat(self.work):
            return False
        if self._figures is not None:
            return is_counted_single(name, self._figures)
        return do_rise(name, (frame for _, one in slices.read for frame in self._frames([name], one)))

    def _frames(self, columns: Sequence[str], predicate: Predicate) -> Iterator[pl.DataFrame]:
        """The rows of a slice in frames of about `batch_rows`, whatever pieces the source gives."""
        waiting: list[pl.DataFrame] = []
        batches = self._world.source.read(
            self.work.plan.table,
            columns=columns,
            where=self.work.plan.where,
            predicate=predicate,
            batch_rows=self._world.batch_rows,
        )
        for batch in self._world.through(batches):
            frame = frame_of(batch)
            # A column that holds a misfit is text in that batch.
            if waiting and waiting[0].schema != frame.schema:
                yield pl.concat(waiting)
                waiting = []
            waiting.append(frame)
            if sum(part.height for part in waiting) >= self._world.batch_rows:
                yield pl.concat(waiting) if len(waiting) > 1 else frame
                waiting = []
        if waiting:
            yield pl.concat(waiting)

    def _scan_slice(self, number: int, predicate: Predicate, decisions: DuplicateDecisions | None) -> None:
        judge = _Judge(self, number, decisions)
        read = (name for name, look in self._looks.items() if look.is_read)
        columns = list(dict.fromkeys([*self.work.rules.source_columns, *read]))
        for frame in self._frames(columns, predicate):
            texts = {values.name: TextLook(values) for values in frame if values.dtype == pl.String}
            suspects = rows_to_clean(
                self.work.rules, frame, as_of=self._world.as_of, parents=self._parents, looks=texts
            )
            marked = pl.repeat(False, frame.height, dtype=pl.Boolean, eager=True)
            marked = marked.scatter(suspects, True) if suspects.len() else marked
            marked = marked | judge.repeated(frame)
            self._look(frame, texts)
            if self.keeps_accepted and not marked.all():
                self.write_accepted(self.work.rules.keys(frame.filter(~marked))["key"])
            judge.add(frame.filter(marked))
            self.rows += frame.height
        judge.finish()
        self._world.tell(f"{self.work.plan.table}: {self.rows:,} rows")

    @property
    def keeps_accepted(self) -> bool:
        """Whether the keys of rows that would be sent are written down as the rows go by."""
        return self._is_parent and self._slices is not None and self._slices.sample is None

    def cleaner(self, number: int, decisions: DuplicateDecisions | None) -> ChunkCleaner:
        """The engine's cleaner of a slice."""
        return ChunkCleaner(
            self.work.rules, chunk_no=number, as_of=self._world.as_of, duplicates=decisions, parents=self._parents
        )

    def note_repeated(self, frame: pl.DataFrame, keys: pl.DataFrame) -> None:
        """Note rows whose key repeats, with their keys."""
        self._repeated.add(self.work, frame, keys)

    def _look(self, frame: pl.DataFrame, texts: Mapping[str, TextLook]) -> None:
        """Statistics and oddities of all columns."""
        for name, look in self._looks.items():
            if not look.is_read:
                continue
            for kind, rows in look.add(frame[name], texts.get(name)):
                keys = self.work.rules.keys(frame[rows])["key"]
                self.sink.add(kind, name, Action.KEPT, keys, look.texts(frame[name].gather(rows)))

    def judge(self, part: pl.DataFrame, cleaned: Cleaned, found: Findings, *, before: int) -> None:
        """Take in what the engine's rules say of some rows.

        Args:
            before: Rows of the slice that its cleaner had judged before these.
        """
        is_lost = cleaned.rows["outcome"].eq_missing(pl.Series(["duplicate"]))
        lost, judged = cleaned.rows.filter(is_lost), cleaned.rows.filter(~is_lost)
        key_column = self.work.rules.key_place.column
        self.sink.add("duplicate", key_column, Action.DROPPED, lost["key"], None)
        self.dropped += lost.height
        refused = judged["outcome"].is_not_null()
        self._count_refused(judged.filter(refused))
        self._record(found, part[judged["row"] - before], judged, refused)
        self._keep_links(cleaned)
        if self.keeps_accepted:
            self.write_accepted(judged["key"].filter(~refused))

    def _count_refused(self, refused: pl.DataFrame) -> None:
        self.rejected += refused.height
        self.codes.update(dict(refused["code"].value_counts(name="rows").iter_rows()))
        self.sink.refused("rejected", refused)

    def _count_failed(self, refused: pl.DataFrame) -> None:
        self.failed += refused.height
        self.sink.refused("failed", refused)

    def _record(self, found: Findings, part: pl.DataFrame, judged: pl.DataFrame, refused: pl.Series) -> None:
        """Put each finding where it belongs; those of rejected rows count as reasons only."""
        groups: dict[tuple[str, str, Action], list[pl.Series]] = {}
        for finding in found.refusals:
            groups.setdefault((finding.rule, finding.place.column, Action.REJECTED), []).append(finding.rows)
        for finding in found.changes:
            if finding.rule not in QUIET_CHANGES:
                groups.setdefault((finding.rule, finding.place.column, Action.CHANGED), []).append(finding.rows)
        for finding in found.warnings:
            rule = finding.rule.removeprefix("warn_")
            action = Action.KEPT if (rule, finding.place.column) in self._kept else Action.WARNED
            groups.setdefault((rule, finding.place.column, action), []).append(finding.rows)
        for (rule, column, action), pieces in groups.items():
            rows = pl.concat(pieces).cast(pl.UInt32).unique().sort()
            if action is not Action.REJECTED:
                rows = rows.filter(~refused.gather(rows))
            values = None
            if column in self._looks and rows.len():
                values = self._looks[column].texts(part[column].gather(rows))
            self.sink.add(rule, column, action, judged["key"].gather(rows), values)
            if rule == "null_key":
                self.null_keys += rows.len()
            if action is Action.REJECTED:
                lines = judged[rows]
                decides = (lines["code"] == f"{PREFIX}{rule.upper()}") & lines["fields"].str.starts_with(column)
                self.sink.found[rule, column, action].decides += int(decides.sum() or 0)

    def _keep_links(self, cleaned: Cleaned) -> None:
        if cleaned.links is None or not cleaned.links.height:
            return
        table = cleaned.links.to_arrow(compat_level=pl.CompatLevel.oldest())
        if self._links is None:
            self._links = pq.ParquetWriter(self.links_file, table.schema, compression="zstd")
        self._links.write_table(table)

    def write_accepted(self, keys: pl.Series) -> None:
        """Write down keys of rows that would be sent, for those who look them up."""
        table = keys.drop_nulls().to_frame("key").to_arrow(compat_level=pl.CompatLevel.oldest())
        if self._accepted is None:
            self._accepted = pq.ParquetWriter(self.accepted_file, table.schema, compression="zstd")
        self._accepted.write_table(table)

    def _all_keys(self, slices: Slices) -> None:
        """Of a sample's table all keys, since the rows that look it up are drawn on their own."""
        for _, predicate in slices.all:
            for frame in self._frames(self.work.rules.key_columns, predicate):
                self.write_accepted(self.work.rules.keys(frame)["key"])

    def finish_links(self, parents: Mapping[str, ParentKeys], circles: Circles | None) -> None:
        """Judge the lookups of the link pass, once all tables of the group are read."""
        if not self.links_file.exists():
            return
        lookups = {info.place.column: info for info in self.work.rules.lookups.values() if info.is_link}
        for links in pl.scan_parquet(self.links_file, glob=False).collect_batches(chunk_size=_LINK_ROWS):
            if circles is not None:
                circles.add(self.work.plan.table, links)
            found = Findings()
            rows = self.work.rules.finish_links(links, parents, found).rows
            refused = rows["outcome"].is_not_null()
            self._count_failed(rows.filter(refused))
            for findings, action in ((found.refusals, Action.FAILED), (found.changes, Action.CHANGED)):
                for finding in findings:
                    places = finding.rows
                    if action is Action.CHANGED:
                        places = places.filter(~refused.gather(places))
                    values = links[lookups[finding.place.column].target].gather(places)
                    keys = links["key"].gather(places)
                    self.sink.add(finding.rule, finding.place.column, action, keys, values)
                    if action is Action.FAILED:
                        self.sink.found[finding.rule, finding.place.column, action].decides += places.len()

    def add_circle(self, circles: Circles, circle: CircleRows) -> None:
        """Note the rows that stand in a circle."""
        for keys in circles.keys_of(circle):
            self.sink.add(CIRCLE, circle.column, Action.LINKED, keys, None)

    def profile(self) -> TableProfile:
        """What was found."""
        self._note_columns()
        work, slices = self.original, self._slices
        assert slices is not None
        equal, by_rule = self._repeated.copies()
        extra = self._repeats.rows - self._repeats.keys
        columns = tuple(look.statistics.profile() for look in self._looks.values())
        return TableProfile(
            table=work.plan.table,
            object=work.plan.object,
            key=work.plan.key,
            rows=self.rows,
            rows_estimate=work.source.rows_estimate,
            sample=slices.sample,
            counted=how_counted(self._figures, self._looks, rows=self.rows),
            null_keys=self.null_keys,
            distinct_keys=(self.rows - self.null_keys if self._repeats.keyed is None else self._repeats.keyed) - extra,
            repeated_keys=self._repeats.keys,
            copies_equal=equal,
            copies_by_rule=by_rule,
            to_send=self.rows - self.rejected - self.dropped,
            rejected=self.rejected,
            dropped=self.dropped,
            failed=self.failed,
            rejected_by=tuple(sorted(self.codes.items())),
            columns=columns,
            findings=findings_of(self._world, work, self.sink.found, repeats=self._repeats, copies=(equal, by_rule)),
            fingerprint=self._world.source.fingerprint(work.plan.table),
            seconds=round(self._world.clock.monotonic() - self._began, 3),
        )

    def _note_columns(self) -> None:
        """Findings on columns as a whole: calendars side by side, and what looks personal."""
        for name, look in self._looks.items():
            invalid = self.sink.found.get(("invalid_date", name, Action.REJECTED))
            if look.eras is not None and invalid is not None:
                invalid.facts = (("before_1700", look.eras.early), ("after_4000", look.eras.late))
            if look.eras is not None and look.eras.is_mixed:
                others = (("other_years", look.eras.common),)
                self.sink.note(MIXED_ERAS, name, Found(rows=look.eras.buddhist, facts=others))
            sign = look.personal_sign()
            if sign is not None:
                facts = (("sign", sign[0]), ("share", f"{sign[1]:.0%}"))
                self.sink.note(PERSONAL, name, Found(rows=look.statistics.present, facts=facts))


class _Judge:
    """Has the engine's rules judge the doubtful rows of one slice, many at a time, as small frames cost as much."""

    def __init__(self, scan: TableScan, number: int, decisions: DuplicateDecisions | None) -> None:
        self._scan = scan
        self._cleaner = scan.cleaner(number, decisions)
        self._repeats = None if decisions is None else decisions.for_chunk(number)
        self._waiting: list[pl.DataFrame] = []
        self._judged = 0

    def repeated(self, frame: pl.DataFrame) -> pl.Series:
        """True for rows whose key repeats, which are noted."""
        if self._repeats is None:
            return pl.repeat(False, frame.height, dtype=pl.Boolean, eager=True)
        keys = self._scan.work.rules.keys(frame)
        mask = self._repeats.repeated(keys["norm"])
        if mask.any():
            self._scan.note_repeated(frame.filter(mask), keys.filter(mask))
        return mask

    def add(self, part: pl.DataFrame) -> None:
        """Take in rows, in the order of the slice."""
        if part.height:
            if self._waiting and self._waiting[0].schema != part.schema:
                self._flush()
            self._waiting.append(compact(part) if part.height < _FEW_OF_BATCH else part)
        if sum(frame.height for frame in self._waiting) >= _JUDGED_ROWS:
            self._flush()

    def finish(self) -> None:
        """After the slice's last row."""
        self._flush()
        self._cleaner.finish()

    def _flush(self) -> None:
        if not self._waiting:
            return
        part = pl.concat(self._waiting)
        self._waiting = []
        found = Findings()
        cleaned = self._cleaner.clean(part, found)
        self._scan.judge(part, cleaned, found, before=self._judged)
        self._judged += part.height
