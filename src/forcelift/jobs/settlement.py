"""What became of each row of a chunk: the staged rows joined with the org's answers. Pure, by columns.

Every source row gets exactly one outcome. `created` stays, whatever a later answer says; a row with links has the worse
of its two outcomes; a row whose answers are gone is `unknown` and keeps its chunk from closing.
"""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl
from msgspec import Struct

from forcelift.audit.records import ChunkCounts, ChunkStatus, StagedChunk
from forcelift.ledger import LEDGER
from forcelift.rules import add_hashes

ACCEPTED = ("created", "updated")


class Outcomes(Struct, frozen=True, kw_only=True):
    """How many rows of a chunk came to which outcome, and what follows from that."""

    outcomes: Mapping[str, int]

    def count(self, *names: str) -> int:
        return sum(self.outcomes.get(name, 0) for name in names)

    @property
    def unknown(self) -> int:
        return self.count("unknown")

    @property
    def status(self) -> ChunkStatus:
        """SUCCESS if nothing was refused, PARTIAL if something was, FAILED if a row's outcome is not known."""
        if self.unknown:
            return ChunkStatus.FAILED
        return ChunkStatus.PARTIAL if self.count("failed", "rejected") else ChunkStatus.SUCCESS

    def counts(self, staged: StagedChunk) -> ChunkCounts:
        """The counts of the audit row; sums as DESIGN section 4 defines them."""
        # What a rollback kept is in the org by this batch, and was accepted once.
        success, failed = self.count(*ACCEPTED, "kept"), self.count("failed")
        return ChunkCounts(
            source=staged.source_count,
            extracted=staged.extracted,
            transformed=staged.transformed,
            skipped=self.count("rejected", "duplicate"),
            loaded=success + failed,
            success=success,
            failed=failed,
        )


class Settlement(Outcomes, frozen=True, kw_only=True):
    """The ledger frame (schema `LEDGER`) of a chunk, or of a slice of one, and the counts of its outcomes."""

    ledger: pl.DataFrame


def settle_rows(
    rows: pl.DataFrame,
    answers: pl.DataFrame,
    *,
    link_rows: pl.DataFrame | None = None,
    link_answers: pl.DataFrame | None = None,
) -> Settlement:
    """Give every row of a chunk its outcome.

    Args:
        rows: The staged rows: `row`, `key`, `outcome`, `code`, `fields`, `details`, `hash`.
        answers: Merged answers of the load jobs, one per key.
        link_rows: What became of the links before they were sent, as `LinkResult.rows`; None without links.
        link_answers: Merged answers of the link jobs.
    """
    told = answers.select(
        "key", "kind", "id", "message", "evidence", "job", "was_created", org_code="code", org_fields="fields"
    )
    sent = _join_answers(rows, told)
    # Most often no rule kept a row back: then all is as the answers say, at a third of the cost.
    ledger = sent.select(_as_told() if rows["outcome"].null_count() == rows.height else _as_kept_or_told())
    if link_rows is not None and link_answers is not None:
        ledger = _with_links(ledger, link_rows, link_answers)
    ledger = ledger.select(LEDGER.names()).cast(LEDGER)
    if not ledger["row"].is_sorted():
        ledger = ledger.sort("row")
    if ledger.height != rows.height:
        raise AssertionError(f"{rows.height} rows became {ledger.height} outcomes")
    return Settlement(ledger=ledger, outcomes=dict(ledger["outcome"].value_counts().iter_rows()))


def _as_told() -> list[pl.Expr]:
    """A ledger's columns of rows that were all to be sent, from rows beside their answers."""
    return [
        pl.col("row", "key", "id"),
        _outcome_told().alias("outcome"),
        pl.col("org_code").alias("code"),
        pl.col("org_fields").alias("fields"),
        pl.col("message"),
        _evidence_told().alias("evidence"),
        pl.col("was_created").fill_null(False).alias("created"),
        pl.col("hash", "job"),
    ]


def _as_kept_or_told() -> list[pl.Expr]:
    """The same where rules kept rows back: those have the rule's word, whatever the answers say."""
    staged = pl.col("outcome").is_not_null()
    return [
        pl.col("row", "key"),
        pl.when(staged).then(None).otherwise("id").alias("id"),
        pl.coalesce("outcome", _outcome_told()).alias("outcome"),
        pl.when(staged).then("code").otherwise("org_code").alias("code"),
        pl.when(staged).then("fields").otherwise("org_fields").alias("fields"),
        pl.when(staged).then("details").otherwise("message").alias("message"),
        pl.when(staged).then(pl.lit("rule")).otherwise(_evidence_told()).alias("evidence"),
        (~staged & pl.col("was_created").fill_null(False)).alias("created"),
        pl.col("hash"),
        pl.when(staged).then(None).otherwise("job").alias("job"),
    ]


def _outcome_told() -> pl.Expr:
    """A row that was to be sent and has no answer must never look settled."""
    return pl.coalesce(pl.col("kind").replace("open", "unknown"), pl.lit("unknown"))


def _evidence_told() -> pl.Expr:
    return pl.coalesce("evidence", pl.lit("staged"))


def _join_answers(rows: pl.DataFrame, told: pl.DataFrame) -> pl.DataFrame:
    """Staged rows beside the answers to them: by key, in the rows' order."""
    is_sent = rows["outcome"].is_null()
    # Most often the answers stand in the order of the rows that were sent. Then comparing the keys is the whole join.
    if told.height == is_sent.sum() and rows["key"].filter(is_sent).equals(told["key"]):
        places = pl.select(pl.when(is_sent).then(is_sent.cum_sum() - 1)).to_series()
        answers = told.drop("key")
        return rows.hstack(answers if is_sent.all() else answers[places])
    return rows.join(told, on="key", how="left", maintain_order="left")


def _with_links(ledger: pl.DataFrame, link_rows: pl.DataFrame, link_answers: pl.DataFrame) -> pl.DataFrame:
    """Join the second pass: only rows that the org has accepted can become worse by it."""
    links = link_rows.select(
        "row",
        link_outcome="outcome",
        link_code="code",
        link_fields="fields",
        link_details="details",
        link_hash="hash",
        has_link=pl.lit(True),
    )
    answered = link_answers.select(
        "key", link_kind="kind", answer_code="code", answer_fields="fields", answer_message="message"
    )
    joined = ledger.join(links, on="row", how="left").join(answered, on="key", how="left")
    accepted = pl.col("outcome").is_in(ACCEPTED) & pl.col("has_link").fill_null(False)
    # A row whose links were all emptied by a rule has no link part to send, and nothing to be refused for.
    was_sent = pl.col("link_outcome").is_null() & pl.col("link_hash").is_not_null()
    refused = accepted & (pl.col("link_outcome") == "rejected").fill_null(False)
    failed = accepted & was_sent & (pl.col("link_kind") == "failed").fill_null(False)
    unknown = accepted & was_sent & ~pl.col("link_kind").is_in(["created", "updated", "failed"]).fill_null(False)

    def choose(name: str, rejected_name: str, failed_name: str) -> pl.Expr:
        return pl.when(refused).then(rejected_name).when(failed).then(failed_name).otherwise(name).alias(name)

    outcome = (
        pl.when(refused | failed).then(pl.lit("failed")).when(unknown).then(pl.lit("unknown")).otherwise("outcome")
    )
    link_hash = joined.select(pl.when(accepted & was_sent).then("link_hash")).to_series()
    return joined.with_columns(
        outcome.alias("outcome"),
        choose("code", "link_code", "answer_code"),
        choose("fields", "link_fields", "answer_fields"),
        choose("message", "link_details", "answer_message"),
        add_hashes(joined["hash"], link_hash).alias("hash"),
    ).select(LEDGER.names())


def open_keys(rows: pl.DataFrame, answers: pl.DataFrame, *, include_unknown: bool) -> pl.DataFrame:
    """Rows that lack a final answer: columns `key` and `transient` (False: never processed).

    Args:
        rows: Rows that were to be sent in this pass: `key`.
        include_unknown: Whether rows whose answers are gone are to be sent again too.
    """
    again = ["open", "unknown"] if include_unknown else ["open"]
    return (
        rows.select("key")
        .join(answers.select("key", "kind", "transient"), on="key", how="left")
        .filter(pl.col("kind").is_null() | pl.col("kind").is_in(again) | pl.col("transient").fill_null(False))
        .select("key", transient=pl.col("transient").fill_null(False))
    )
