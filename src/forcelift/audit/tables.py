"""The tables of the audit database: the checklist's three, and the engine's own beside them.

The checklist's names are never quoted: Oracle reads them in upper case, PostgreSQL in lower case, SQLite as
written, and the checklist's own statements find them everywhere. In Python the columns are spelt in lower case.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.sql.elements import quoted_name
from sqlalchemy.types import TypeEngine

from forcelift.audit.before_tables import accepted_finding as accepted_finding
from forcelift.audit.before_tables import evidence as evidence
from forcelift.audit.before_tables import org_state as org_state
from forcelift.audit.before_tables import org_state_holder as org_state_holder
from forcelift.audit.before_tables import profile as profile
from forcelift.audit.note_tables import report_note as report_note
from forcelift.audit.retry_tables import retry as retry
from forcelift.audit.retry_tables import retry_chunk as retry_chunk
from forcelift.audit.schema import FILE, HASH, ID, NAME, WORD
from forcelift.audit.schema import metadata as metadata
from forcelift.audit.signoff_tables import consent as consent
from forcelift.audit.signoff_tables import purge as purge
from forcelift.audit.signoff_tables import sign_off as sign_off
from forcelift.audit.types import (
    Count,
    Document,
    Measure,
    Moment,
    PresentMoment,
    clob,
    maybe_empty,
    varchar,
    whole_number,
)

SCHEMA_VERSION = 6
PRODUCT = "forcelift"

BATCH_ID_BYTES = 50
TABLE_NAME_BYTES = 100
RECORD_ID_BYTES = 100
ERROR_CODE_BYTES = 50
ERROR_MESSAGE_BYTES = 4000
ERROR_FIELDS_BYTES = 1000
FILE_PATH_BYTES = 500
CREATED_BY_BYTES = 100


def _plain(name: str) -> quoted_name:
    return quoted_name(name, quote=False)


def _column(name: str, kind: TypeEngine[Any], *arguments: Any, **options: Any) -> sa.Column[Any]:
    return sa.Column(_plain(name), kind, *arguments, key=name.lower(), **options)


audit_log = sa.Table(
    _plain("MIGRATION_AUDIT_LOG"),
    metadata,
    _column("AUDIT_ID", whole_number(), sa.Identity(always=True), primary_key=True),
    _column("BATCH_ID", varchar(BATCH_ID_BYTES), nullable=False),
    _column("TABLE_NAME", varchar(TABLE_NAME_BYTES), nullable=False),
    _column("CHUNK_ID", whole_number()),
    # The default is the checklist's, for rows of others. Ours say null outright until their chunk begins, which every
    # database then keeps: a default stands in for a column that is left out, never for a null that is given.
    _column("START_TIME", Moment(), server_default=PresentMoment()),
    _column("END_TIME", Moment()),
    _column("DURATION_SECONDS", Measure()),
    _column("SOURCE_COUNT", Count()),
    _column("EXTRACTED_COUNT", Count()),
    _column("TRANSFORMED_COUNT", Count()),
    _column("LOADED_COUNT", Count()),
    _column("SUCCESS_COUNT", Count()),
    _column("FAILED_COUNT", Count()),
    _column("SKIPPED_COUNT", Count()),
    _column("STATUS", varchar(20)),
    _column("ERROR_MESSAGE", varchar(ERROR_MESSAGE_BYTES)),
    _column("ERROR_DETAILS", clob()),
    _column("SF_JOB_ID", varchar(50)),
    _column("SF_BATCH_ID", varchar(50)),
    _column("CSV_FILE_PATH", varchar(FILE_PATH_BYTES)),
    _column("CSV_FILE_SIZE_MB", Measure()),
    _column("SOURCE_CHECKSUM", varchar(64)),
    _column("TARGET_CHECKSUM", varchar(64)),
    # The default is the checklist's, for statements of others; our own always say who really acted.
    _column("CREATED_BY", varchar(CREATED_BY_BYTES), server_default="AIRFLOW"),
    _column("CREATED_DATE", Moment(), server_default=PresentMoment()),
    sqlite_autoincrement=True,
)
sa.Index(_plain("IDX_AUDIT_BATCH"), audit_log.c.batch_id)
sa.Index(_plain("IDX_AUDIT_TABLE"), audit_log.c.table_name)
sa.Index(_plain("IDX_AUDIT_STATUS"), audit_log.c.status)
sa.Index(_plain("IDX_AUDIT_DATE"), audit_log.c.created_date)

failed_records = sa.Table(
    _plain("MIGRATION_FAILED_RECORDS"),
    metadata,
    _column("FAILED_ID", whole_number(), sa.Identity(always=True), primary_key=True),
    _column("AUDIT_ID", whole_number(), sa.ForeignKey(audit_log.c.audit_id)),
    _column("TABLE_NAME", varchar(TABLE_NAME_BYTES), nullable=False),
    _column("RECORD_ID", varchar(RECORD_ID_BYTES), nullable=False),
    _column("SF_ERROR_CODE", varchar(ERROR_CODE_BYTES)),
    _column("SF_ERROR_MESSAGE", varchar(ERROR_MESSAGE_BYTES)),
    _column("SF_ERROR_FIELDS", varchar(ERROR_FIELDS_BYTES)),
    _column("RETRY_COUNT", whole_number(), server_default=sa.text("0")),
    _column("LAST_RETRY_DATE", Moment()),
    _column("RESOLVED", sa.CHAR(1), server_default="N"),
    _column("RESOLVED_DATE", Moment()),
    _column("RESOLUTION_NOTES", varchar(4000)),
    _column("RECORD_DATA", clob()),
    _column("CREATED_DATE", Moment(), server_default=PresentMoment()),
    sqlite_autoincrement=True,
)
sa.Index(_plain("IDX_FAILED_TABLE"), failed_records.c.table_name)
sa.Index(_plain("IDX_FAILED_RESOLVED"), failed_records.c.resolved)

# The whole keys of failed records whose RECORD_ID is not the key itself, as it had to be cut or hashed.
failed_key = sa.Table(
    "failed_key",
    metadata,
    sa.Column("audit_id", whole_number(), sa.ForeignKey(audit_log.c.audit_id), primary_key=True, autoincrement=False),
    sa.Column("record_id", varchar(RECORD_ID_BYTES), primary_key=True),
    sa.Column("record_key", clob(), nullable=False),
)

backup_log = sa.Table(
    _plain("MIGRATION_BACKUP_LOG"),
    metadata,
    _column("TABLE_NAME", varchar(TABLE_NAME_BYTES)),
    _column("BACKUP_TABLE", varchar(128)),
    _column("ROW_COUNT", Count()),
    _column("CREATED_DATE", Moment()),
    # Beside the four columns of the checklist's INSERT, and nullable so that it runs as written.
    _column("BATCH_ID", varchar(BATCH_ID_BYTES)),
    _column("CHECKSUM", varchar(64)),
    _column("CREATED_BY", varchar(CREATED_BY_BYTES)),
    _column("SOURCE_URL", varchar(1000)),
    _column("DROPPED_DATE", Moment()),
    _column("DROPPED_BY", varchar(CREATED_BY_BYTES)),
)

schema_version = sa.Table(
    "schema_version",
    metadata,
    sa.Column("product", WORD, primary_key=True),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("created_at", Moment(), nullable=False),
)

batch = sa.Table(
    "batch",
    metadata,
    sa.Column("batch_no", sa.Integer, sa.Identity(), primary_key=True),
    sa.Column("batch_id", ID, nullable=False, unique=True),
    # What stands in BATCH_ID of the checklist's tables: the same, or shortened to 50 bytes.
    sa.Column("short_id", varchar(BATCH_ID_BYTES), nullable=False, unique=True),
    sa.Column("project", NAME, nullable=False),
    sa.Column("mode", WORD, nullable=False),
    sa.Column("state", WORD, nullable=False),
    sa.Column("org_id", varchar(18), nullable=False),
    sa.Column("org_url", FILE, nullable=False),
    sa.Column("source_url", FILE, nullable=False),
    sa.Column("as_of", Moment(), nullable=False),
    sa.Column("snapshot", NAME),
    # What stands in the marker file of the batch's staging folder, so that another host can tell whether it sees it.
    sa.Column("marker", WORD),
    sa.Column("plan_sha256", HASH, nullable=False),
    sa.Column("plan_revision", sa.Integer, nullable=False),
    sa.Column("created_by", NAME, nullable=False),
    sa.Column("started_at", Moment(), nullable=False),
    sa.Column("ended_at", Moment()),
    sqlite_autoincrement=True,
)
sa.Index("idx_batch_project", batch.c.project)

plan_revision = sa.Table(
    "plan_revision",
    metadata,
    sa.Column("batch_id", ID, sa.ForeignKey(batch.c.batch_id), primary_key=True),
    sa.Column("revision", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("plan_sha256", HASH, nullable=False),
    sa.Column("document", Document(), nullable=False),
    sa.Column("made_at", Moment(), nullable=False),
    sa.Column("made_by", NAME, nullable=False),
)

batch_table = sa.Table(
    "batch_table",
    metadata,
    sa.Column("batch_id", ID, sa.ForeignKey(batch.c.batch_id), primary_key=True),
    sa.Column("table_name", NAME, primary_key=True),
    sa.Column("object", varchar(80), nullable=False),
    sa.Column("position", sa.Integer, nullable=False),
    sa.Column("fingerprint", maybe_empty(255)),
    sa.Column("duplicates_file", FILE),
    sa.Column("source_count", sa.BigInteger),
    sa.Column("info", Document(), nullable=False),
)

chunk = sa.Table(
    "chunk",
    metadata,
    sa.Column("audit_id", whole_number(), sa.ForeignKey(audit_log.c.audit_id), primary_key=True, autoincrement=False),
    sa.Column("batch_id", ID, nullable=False),
    sa.Column("table_name", NAME, nullable=False),
    sa.Column("chunk_no", sa.Integer, nullable=False),
    sa.Column("predicate", Document(), nullable=False),
    sa.Column("rows_estimate", sa.BigInteger, nullable=False),
    sa.Column("step", WORD, nullable=False),
    sa.Column("generation", sa.Integer, nullable=False),
    sa.Column("staged", Document()),
    sa.Column("link_parts", Document()),
    sa.Column("link_refused", sa.BigInteger, nullable=False),
    sa.Column("ledger_file", FILE),
    sa.Column("ledger_sha256", HASH),
    # FAILED_ID of the first and last record of this chunk: they are replaced without a scan of the whole table.
    sa.Column("failed_first", sa.BigInteger),
    sa.Column("failed_last", sa.BigInteger),
    # Fence of the runner that has it, or had it last in this session; only where several may share a batch.
    sa.Column("claim", sa.BigInteger),
    # 0 for the chunk that counts; a chunk that was rolled back and is loaded anew stays under the numbers from 1.
    sa.Column("superseded", sa.Integer, nullable=False, server_default=sa.text("0")),
    sa.UniqueConstraint("batch_id", "table_name", "chunk_no", "superseded"),
    sa.ForeignKeyConstraint(["batch_id", "table_name"], ["batch_table.batch_id", "batch_table.table_name"]),
)

job = sa.Table(
    "job",
    metadata,
    sa.Column("job_no", sa.Integer, sa.Identity(), primary_key=True),
    sa.Column("batch_id", ID, sa.ForeignKey(batch.c.batch_id), nullable=False),
    sa.Column("audit_id", whole_number(), sa.ForeignKey(audit_log.c.audit_id), nullable=False),
    sa.Column("org_id", varchar(18), nullable=False),
    sa.Column("kind", WORD, nullable=False),
    sa.Column("object", varchar(80), nullable=False),
    sa.Column("operation", WORD, nullable=False),
    sa.Column("external_id_field", varchar(120)),
    sa.Column("file", FILE, nullable=False, quote=True),
    sa.Column("rows", sa.BigInteger, nullable=False, quote=True),
    sa.Column("bytes", sa.BigInteger, nullable=False),
    sa.Column("sha256", HASH, nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("step", WORD, nullable=False),
    sa.Column("intended_at", Moment(), nullable=False),
    sa.Column("created_at", Moment()),
    sa.Column("closed_at", Moment()),
    sa.Column("ended_at", Moment()),
    sa.Column("sf_id", varchar(18)),
    sa.Column("org_state", WORD),
    sa.Column("results_file", FILE),
    sa.Column("answered", sa.BigInteger),
    sa.Column("error_message", varchar(ERROR_MESSAGE_BYTES)),
    sa.Column("fence", sa.BigInteger, nullable=False),
    # The hour whose budget holds this job's rows; null once they were given back.
    sa.Column("budget_hour", Moment()),
    sqlite_autoincrement=True,
)
sa.Index("idx_job_batch", job.c.batch_id)
sa.Index("idx_job_audit", job.c.audit_id)
sa.Index("idx_job_sf", job.c.org_id, job.c.sf_id)

# What was found out about a table's object before the first of its rows was sent, and the one file that chunks share
# whose keys cannot be asked for as a range.
table_image = sa.Table(
    "table_image",
    metadata,
    sa.Column("batch_id", ID, sa.ForeignKey(batch.c.batch_id), primary_key=True),
    sa.Column("table_name", NAME, primary_key=True),
    sa.Column("held_records", sa.Integer, nullable=False),
    sa.Column("decided_at", Moment(), nullable=False),
    sa.Column("file", FILE, quote=True),
    sa.Column("sha256", HASH),
    sa.Column("rows", sa.BigInteger, quote=True),
    sa.Column("asked_at", Moment()),
)

# The records of a chunk's keys as they stood just before its first job.
before_image = sa.Table(
    "before_image",
    metadata,
    sa.Column("audit_id", whole_number(), sa.ForeignKey(audit_log.c.audit_id), primary_key=True, autoincrement=False),
    sa.Column("generation", sa.Integer, primary_key=True, autoincrement=False),
    # Null where the object held no record at all.
    sa.Column("file", FILE, quote=True),
    sa.Column("sha256", HASH),
    sa.Column("rows", sa.BigInteger, nullable=False, quote=True),
    sa.Column("taken_at", Moment(), nullable=False),
)

rollback = sa.Table(
    "rollback",
    metadata,
    sa.Column("rollback_no", sa.Integer, sa.Identity(), primary_key=True),
    sa.Column("batch_id", ID, sa.ForeignKey(batch.c.batch_id), nullable=False),
    sa.Column("reason", maybe_empty(4000)),
    sa.Column("asked_by", NAME, nullable=False),
    sa.Column("began_at", Moment(), nullable=False),
    # The last of the checklist's nine steps that is done.
    sa.Column("step", sa.Integer, nullable=False),
    sa.Column("ended_at", Moment()),
    sa.Column("scope", Document(), nullable=False),
    sa.Column("result", Document()),
    sqlite_autoincrement=True,
)
sa.Index("idx_rollback_batch", rollback.c.batch_id)

# What a rollback does to one chunk: decided and sealed before the first record is touched.
rollback_chunk = sa.Table(
    "rollback_chunk",
    metadata,
    sa.Column("rollback_no", sa.Integer, sa.ForeignKey(rollback.c.rollback_no), primary_key=True),
    sa.Column("audit_id", whole_number(), sa.ForeignKey(audit_log.c.audit_id), primary_key=True, autoincrement=False),
    sa.Column("decisions_file", FILE, nullable=False),
    sa.Column("decisions_sha256", HASH, nullable=False),
    sa.Column("restores", Document(), nullable=False),
    sa.Column("deletes", Document(), nullable=False),
    sa.Column("step", WORD, nullable=False),
)

budget = sa.Table(
    "budget",
    metadata,
    sa.Column("org_id", varchar(18), primary_key=True),
    sa.Column("hour", Moment(), primary_key=True),
    sa.Column("rows_reserved", sa.BigInteger, nullable=False),
    sa.Column("batches_reserved", sa.BigInteger, nullable=False),
)

# One row for each process that ever worked on a batch. It lives while it is neither released nor lost, and, where time
# tells, its heartbeat is younger than `patience_s`.
lease = sa.Table(
    "lease",
    metadata,
    sa.Column("batch_id", ID, primary_key=True),
    sa.Column("fence", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("owner", NAME, nullable=False),
    sa.Column("since", Moment(), nullable=False),
    sa.Column("heartbeat", Moment(), nullable=False),
    sa.Column("patience_s", sa.Float, nullable=False),
    # The state of the source that this process reads, and the name under which another may import it.
    sa.Column("reads", NAME),
    sa.Column("exports", NAME),
    sa.Column("released_at", Moment()),
    sa.Column("lost_at", Moment()),
    sa.Column("lost_to", NAME),
)

# Work that is done once for a table, whoever does it: `plan` and `check`.
claim = sa.Table(
    "claim",
    metadata,
    sa.Column("batch_id", ID, primary_key=True),
    sa.Column("kind", WORD, primary_key=True),
    sa.Column("table_name", NAME, primary_key=True),
    sa.Column("fence", sa.BigInteger, nullable=False),
    sa.Column("done_at", Moment()),
    sa.Column("result", Document()),
)

control = sa.Table(
    "control",
    metadata,
    sa.Column("batch_id", ID, sa.ForeignKey(batch.c.batch_id), primary_key=True),
    sa.Column("stop", sa.Integer, nullable=False),
    sa.Column("stop_now", sa.Integer, nullable=False),
    sa.Column("paused", sa.Integer, nullable=False),
    sa.Column("throttle_jobs", sa.Integer),
    sa.Column("reason", varchar(1000)),
    sa.Column("asked_by", NAME),
    sa.Column("asked_at", Moment()),
)

validation_result = sa.Table(
    "validation_result",
    metadata,
    sa.Column("result_no", sa.Integer, sa.Identity(), primary_key=True),
    sa.Column("batch_id", ID, sa.ForeignKey(batch.c.batch_id), nullable=False),
    sa.Column("table_name", NAME),
    sa.Column("level", sa.Integer, nullable=False, quote=True),
    sa.Column("check_name", NAME, nullable=False),
    sa.Column("passed", sa.Integer),
    sa.Column("details", Document(), nullable=False),
    sa.Column("taken_at", Moment(), nullable=False),
    sqlite_autoincrement=True,
)
sa.Index("idx_validation_batch", validation_result.c.batch_id)

# The journal's columns are text as hashed: no type of any database may change a byte of them.
journal = sa.Table(
    "journal",
    metadata,
    sa.Column("seq", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True, autoincrement=False),
    sa.Column("at", varchar(32), nullable=False),
    sa.Column("action", WORD, nullable=False),
    sa.Column("batch_id", ID),
    sa.Column("payload", clob(), nullable=False),
    sa.Column("previous", HASH, nullable=False),
    sa.Column("hash", HASH, nullable=False),
)

# One row: the last link of the chain, so that a journal cut off at its end is noticed.
journal_head = sa.Table(
    "journal_head",
    metadata,
    sa.Column("one", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("seq", sa.BigInteger, nullable=False),
    sa.Column("hash", HASH, nullable=False),
)
