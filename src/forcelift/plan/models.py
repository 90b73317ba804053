"""The plan file's models: every key of DESIGN section 3 has its place here, also those whose phase is built later.

Values are checked for form only; whether columns, objects and fields exist is checked against source and org. The
descriptions are the reference: `docs/reference/plan-file.md` and the JSON Schema are made from them.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr

from forcelift.plan.markers import Expect, RawAny, RawText, ReferringText, SecretText, SecretUrlText

API_NAME = r"^[A-Za-z][A-Za-z0-9_]*$"
FIELD_NAME = r"^(([A-Za-z][A-Za-z0-9_]*:)?[A-Za-z][A-Za-z0-9_]*\.)?[A-Za-z][A-Za-z0-9_]*$"

ApiName = Annotated[str, Field(pattern=API_NAME), Expect("an API name such as `Tenant_Code__c`")]
FieldName = Annotated[
    str, Field(pattern=FIELD_NAME), Expect("a field such as `Name`, or for a lookup `Tenant__r.Tenant_Code__c`")
]
Name = Annotated[str, Field(min_length=1, pattern=r"^[^\x00-\x1f]*$"), Expect("a name")]


class Strict(BaseModel):
    """Unknown keys are refused; models do not change once read."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, str_strip_whitespace=False, hide_input_in_errors=True, allow_inf_nan=False
    )


class SourceLimits(Strict):
    """How much the source may be asked for."""

    sessions: int = Field(
        default=8,
        ge=1,
        description="Sessions open at once on the source; on PostgreSQL from 2, as one of them holds the snapshot.",
    )
    rows_per_second: int | None = Field(
        default=None, ge=1, description="Rows read per second over all sessions, at most; `null` is no limit."
    )


class SourceSettings(Strict):
    """Where rows are read from."""

    url: SecretUrlText = Field(
        description="`oracle://host/service`, `postgresql://host/db`, `sqlite:///path`, `duckdb:///path`, or "
        "`files:./folder` of CSV or Parquet files; relative paths start at the plan file's folder."
    )
    user: ReferringText | None = Field(
        default=None,
        description="Name to sign in with; `${ENV}` and `file:PATH` are read. Databases behind a server only.",
    )
    password: SecretText | None = Field(
        default=None,
        description="Password to sign in with, as `${ENV}` or `file:PATH`. Databases behind a server only.",
    )
    encoding: str = Field(
        default="utf-8", description="Encoding of text that reaches Forcelift as bytes; tables and columns override it."
    )
    timezone: str | None = Field(
        default=None,
        description="IANA zone of timestamps without a zone; tables and columns override it. Without any, a "
        "datetime field cannot be fed from them.",
    )
    lost_snapshot: Literal["per_chunk", "stop"] = Field(
        default="per_chunk",
        description="What becomes of a chunk when the source has forgotten the batch's snapshot (Oracle: ORA-01555). "
        "`per_chunk` reads it as of a snapshot of its own, and says so in the audit database, the summary and "
        "`status`; `stop` ends the run.",
    )
    limits: SourceLimits = Field(default=SourceLimits(), description="How much the source may be asked for.")


class Auth(Strict):
    """How to sign in; which of the fields are needed depends on `flow`."""

    flow: Literal["jwt", "client_credentials", "token", "sf_cli"] | None = Field(
        default=None,
        description="`jwt` takes `client_id`, `username`, `private_key` and perhaps `audience`; "
        "`client_credentials` "
        "takes `client_id` and `client_secret`; `token` takes `access_token`; `sf_cli` takes `alias`. Needed unless "
        "`airflow_conn` is given.",
    )
    client_id: ReferringText | None = Field(
        default=None, description="Consumer key of the connected app; `${ENV}` and `file:PATH` are read."
    )
    client_secret: SecretText | None = Field(default=None, description="Consumer secret, as `${ENV}` or `file:PATH`.")
    username: ReferringText | None = Field(
        default=None, description="User to act as, for `jwt`; `${ENV}` and `file:PATH` are read."
    )
    private_key: SecretText | None = Field(
        default=None, description="Private key in PEM form, for `jwt`, as `file:PATH` or `${ENV}`."
    )
    access_token: SecretText | None = Field(
        default=None, description="Access token that was got elsewhere, for `token`, as `${ENV}` or `file:PATH`."
    )
    alias: str | None = Field(
        default=None, description="Alias of an org that the Salesforce command line is signed in to, for `sf_cli`."
    )
    audience: str | None = Field(
        default=None,
        description="Audience of the JWT; by default login.salesforce.com, or test.salesforce.com for a sandbox.",
    )
    airflow_conn: str | None = Field(
        default=None, description="Airflow connection to take the credentials from, instead of `flow`."
    )


class TargetSettings(Strict):
    """The org that is written to."""

    url: str = Field(
        description="`https://` address of the org, `http://` of a twin on this machine, or "
        "`twin:./org.duckdb` for a "
        "twin inside the process."
    )
    auth: Auth | None = Field(default=None, description="How to sign in; needed for `https://`, unused by `twin:`.")
    api_version: Annotated[str, Field(pattern=r"^\d{2,3}\.0$"), Expect("a version such as `66.0`")] = Field(
        default="66.0", description="Version of Salesforce's API."
    )
    ca_file: str | None = Field(
        default=None, description="File of CA certificates (PEM) to trust besides the usual ones."
    )
    twin_schema: str | None = Field(
        default=None, description="For a `twin:` url whose data file is new: the schema file to make it from."
    )


class AuditSettings(Strict):
    """The database that accounts for every chunk and job."""

    url: SecretUrlText = Field(
        default=SecretStr("sqlite:///state/audit.db"),
        description="`sqlite:///path`, `postgresql://host/db` or `oracle://host/service`.",
    )
    user: ReferringText | None = Field(
        default=None,
        description="Name to sign in with; `${ENV}` and `file:PATH` are read. Databases behind a server only.",
    )
    password: SecretText | None = Field(
        default=None,
        description="Password to sign in with, as `${ENV}` or `file:PATH`. Databases behind a server only.",
    )


class Retention(Strict):
    """What stays on disk, and how much of a refused row the audit database keeps."""

    staged_files: Annotated[
        Literal["until_settled", "until_done", "keep"] | Annotated[int, Field(ge=0, le=36_500)],
        Expect("`until_settled`, `until_done`, `keep` or a number of days"),
    ] = Field(
        default="until_settled",
        description="How long staged files stay: until their chunk has settled, until their batch is done, for ever, "
        "or that many days after their batch was done; then the next `run` of this plan removes them.",
    )
    record_data: Literal["masked", "none", "full"] = Field(
        default="masked", description="How a refused row is kept: with personal columns masked, not at all, or whole."
    )


class FieldRule(Strict):
    """One column's way into a field, with its rules; a rule left out has its default."""

    field: FieldName = Field(description="Target field, or `Relationship.ExternalId` for a lookup.")
    parent: Name | None = Field(default=None, description="Table of this plan whose records the lookup points at.")
    missing_parent: Literal["reject", "to_null"] = Field(
        default="reject",
        description="Neither ledger nor org holds the parent as accepted, compared as its key field compares; one "
        "that was rejected, refused or lies outside its own `where` is missing. A null foreign key is not.",
    )
    outer_blanks: Literal["trim", "reject"] = Field(
        default="trim", description="Blanks at both ends: U+0009 to U+000D and U+0020, no others."
    )
    values: dict[str, RawText] | None = Field(
        default=None,
        description="Value map, applied after trimming. Keys and values are the very text in the file: "
        "`012`, `Y` and `null` are texts.",
    )
    unmapped: Literal["reject", "keep", "to_null"] = Field(
        default="reject", description="A value that `values` does not name."
    )
    empty: Annotated[
        Literal["to_null", "reject"] | Annotated[dict[Literal["default"], RawText], Field(min_length=1)],
        Expect("`to_null`, `reject` or `{default: TEXT}`"),
    ] = Field(
        default="to_null",
        description="Null or blank after the value map. A required field left empty is rejected (`EMPTY_REQUIRED`), "
        "never sent.",
    )
    na_text: Literal["reject", "to_null"] = Field(
        default="reject",
        description="Exactly `#N/A` after trimming, which Salesforce would take for null; in keys and parent "
        "columns too.",
    )
    control_characters: Literal["remove", "reject", "keep"] = Field(
        default="remove",
        description="U+0000 to U+001F without tab, LF and CR, and U+007F to U+009F; NUL is never kept.",
    )
    zero_width: Literal["keep", "remove"] = Field(
        default="keep", description="Zero-width characters, apart from control characters."
    )
    unicode: Literal["keep", "nfc"] = Field(default="keep", description="Unicode form: as it is, or composed (NFC).")
    too_long: Literal["reject", "truncate"] = Field(
        default="reject",
        description="More UTF-16 units than the field takes, line ends counted as one. Cut between grapheme clusters.",
    )
    invalid_date: Literal["reject", "to_null"] = Field(
        default="reject", description="Not a date, or outside 1700-01-01 to 4000-12-31 (datetimes in UTC)."
    )
    buddhist_era: Literal["warn", "reject", "convert", "keep"] = Field(
        default="warn",
        description="Years 2400 to 2700 in date and datetime columns; `convert` subtracts 543, also "
        "from a 29 February that only exists then. Before `future_date`.",
    )
    future_date: Literal["warn", "reject", "to_null", "keep"] = Field(
        default="warn", description="Later than the batch's `as_of`; for dates, than its day in the column's zone."
    )
    negative: Literal["warn", "reject", "keep"] = Field(default="warn", description="A number below zero.")
    number_size: Literal["reject"] = Field(default="reject", description="More integer digits than the field has.")
    encoding_error: Literal["reject", "replace"] = Field(
        default="reject",
        description="Bytes that the declared encoding lacks; they reject their row, or become U+FFFD and are counted.",
    )
    encoding: str | None = Field(
        default=None,
        description="Encoding of this column's bytes; by default the table's. Not for text that the source "
        "delivers decoded (DuckDB, Parquet).",
    )
    timezone: str | None = Field(
        default=None, description="IANA zone of this column's timestamps without one; by default the table's."
    )
    date_format: str | None = Field(
        default=None,
        description="How dates are written in a text column, in the signs of `strptime` such as `%d/%m/%Y`; "
        "by default ISO 8601.",
    )
    personal: bool | None = Field(
        default=None,
        strict=True,
        description="Whether the column holds personal data, masked wherever rows are kept; by default text "
        "is personal, other kinds are not.",
    )
    merge: Literal["latest", "first", "min", "max", "sum", "longest", "not_null"] | None = Field(
        default=None,
        description="Which of several copies gives this column's value, under `duplicates: merge`: `latest` or `first` "
        "by `changed_at`, also if it is null; of those that are not blank the smallest, the largest, the exact sum, "
        "the longest text, or (`not_null`) the latest. By default `latest` with `changed_at`, else `first`.",
    )


class DuplicateRule(StrEnum):
    """Which of several rows with one key is kept."""

    REJECT = "reject"
    KEEP_LATEST = "keep_latest"
    KEEP_FIRST = "keep_first"
    MERGE = "merge"


class Check(Strict):
    """A business rule of validation level 4: a group sum, or a pair of queries."""

    name: Name = Field(description="Name of the check in reports; once per table.")
    sum: Name | None = Field(default=None, description="Column to add up, together with `by`.")
    by: Name | None = Field(default=None, description="Column to group by, together with `sum`.")
    sql: Annotated[str, Field(min_length=1)] | None = Field(
        default=None, description="Query for the source, read-only, together with `soql`."
    )
    soql: Annotated[str, Field(min_length=1)] | None = Field(
        default=None, description="Query for the org, together with `sql`."
    )
    tolerance: Annotated[
        RawText, Field(pattern=r"^\d{1,30}(\.\d{1,30})?$"), Expect('a plain decimal such as `"0.01"`')
    ] = Field(default="0", description="How far both sides may lie apart, as a plain decimal in the unit of the sum.")


def _field_rule(value: object) -> object:
    """Give the short form `COLUMN: Field__c` its long one."""
    return {"field": value} if isinstance(value, str) else value


def _columns(value: object) -> object:
    """Give `key: A` the form of a list."""
    return (value,) if isinstance(value, str) else value


class TablePlan(Strict):
    """One table's way into one object."""

    table: Name = Field(
        description="Source table or view, once in a plan; for folders the file's name without its ending."
    )
    object: ApiName = Field(description="API name of the target object.")
    key: Annotated[
        tuple[Name, ...],
        Field(min_length=1),
        BeforeValidator(_columns, json_schema_input_type=Name | Annotated[tuple[Name, ...], Field(min_length=1)]),
        Expect("a column or a list of columns"),
    ] = Field(description="Column or columns that name a row. Several are joined with `|` in canonical form.")
    external_id: ApiName = Field(
        description="External ID field that holds the key. Filled from `key`, so that nothing else may be "
        "mapped onto it."
    )
    operation: Literal["upsert", "insert"] = Field(
        default="upsert", description="`insert` is for first loads and needs an external ID that is unique in the org."
    )
    where: Annotated[str, Field(min_length=1)] | None = Field(
        default=None,
        description="Condition in the source's SQL; rows outside it are not part of the migration. Run as it stands.",
    )
    changed_at: Name | None = Field(
        default=None,
        description="Column with the time of a row's last change, for delta runs, `keep_latest` and `merge`. Compared "
        "as numbers if it holds numbers or goes to a number field, as dates if it holds dates, else as canonical text; "
        "null and what is none is oldest.",
    )
    created_field: FieldName | None = Field(
        default=None, description="Field that holds the row's creation time, for roll back by date; must be mapped."
    )
    fields: Annotated[
        dict[
            str,
            Annotated[
                FieldRule,
                BeforeValidator(_field_rule, json_schema_input_type=FieldName | FieldRule),
                Expect("a field name, or a map with `field` and its rules"),
            ],
        ],
        Field(min_length=1),
    ] = Field(
        description="Columns and the fields they fill: `COLUMN: Field__c`, or `COLUMN: {field: Field__c, "
        "...}` with rules."
    )
    constants: dict[
        str, Annotated[RawText | dict[str, RawText], Expect("a text, `{record_type: NAME}` or `{owner: USERNAME}`")]
    ] = Field(
        default={},
        description="Fields with one value in all records: a text, `{record_type: NAME}` or `{owner: USERNAME}`.",
    )
    computed: dict[
        str, Annotated[dict[str, RawAny], Expect("a map with one expression, such as `{concat: [A, B]}`")]
    ] = Field(
        default={},
        description='Fields made by an expression, such as `{concat: [COLUMN, {text: "-"}, COLUMN]}`; the forms stand '
        "under Computed fields.",
    )
    null_key: Literal["reject", "stop"] = Field(
        default="reject", description="A row whose key has a null or blank part: reject it, or stop the batch."
    )
    duplicates: DuplicateRule = Field(
        default=DuplicateRule.REJECT,
        description="Several rows within `where` have the same key, as the target field compares it: outer blanks off, "
        "and in lower case unless the field is case sensitive. Decided before all other rules: the loser is "
        "`duplicate` even if the winner is rejected. `reject` rejects all copies; `keep_latest` needs `changed_at`, "
        "where null is oldest; ties, and `keep_first` without `changed_at`, go by the canonical text of all mapped "
        "columns.",
    )
    nulls: Literal["clear", "leave"] = Field(
        default="clear",
        description="A null empties the field in the org (sent as `#N/A`), or leaves what is there (sent as "
        "an empty cell).",
    )
    encoding: str | None = Field(default=None, description="Encoding of this table's bytes; by default the source's.")
    timezone: str | None = Field(
        default=None, description="IANA zone of this table's timestamps without one; by default the source's."
    )
    checks: tuple[Check, ...] = Field(default=(), description="Business rules that `validate` compares on both sides.")


class Chunks(Strict):
    """How tables are cut."""

    rows: Annotated[Literal["auto"] | Annotated[int, Field(ge=1)], Expect("`auto` or a whole number from 1")] = Field(
        default="auto",
        description="Rows per chunk; `auto` takes multiples of 10,000, files under 100 MB and at most 10 "
        "minutes a job.",
    )


class Limits(Strict):
    """What a batch may use of org and machine."""

    parallel_jobs: int = Field(default=5, ge=1, description="Bulk jobs open at once.")
    rows_per_day: int = Field(default=150_000_000, ge=1, description="Rows sent within any 24 hours.")
    api_calls_reserve: int = Field(default=1000, ge=0, description="API calls of the day that are left to others.")
    staging_gb: float = Field(default=100, gt=0, description="Disk space for staged files, in GB of 10^9 bytes.")
    memory_mb: int = Field(
        default=2048,
        ge=256,
        description="Memory budget of the process, in MB of 2^20 bytes; below 448 it takes about 420 all the same.",
    )
    window: Annotated[
        str | Annotated[tuple[str, ...], Field(min_length=1)] | None,
        Expect("hours such as `22:00-06:00 Asia/Bangkok`, or a list of them"),
    ] = Field(
        default=None,
        description="Hours in which reading and loading go on, as `22:00-06:00 Asia/Bangkok`, or a list of such; "
        "`null` is always. The form stands under Hours.",
    )


class Prepare(Strict):
    """What `prepare` does to the org."""

    leave_on: tuple[str, ...] = Field(default=(), description="Automations that `prepare` leaves switched on, by name.")
    run_tests: tuple[str, ...] = Field(
        default=(),
        description="Apex test classes that a production org runs when triggers are deployed; all local ones if empty.",
    )
    permission_set: str | None = Field(
        default=None,
        description="Name of the permission set that gets to see an external ID field which `prepare` makes; by "
        "default the one of the loading user's profile.",
    )
    track_history: tuple[
        Annotated[str, Field(pattern=r"^\w+\.\w+$"), Expect("an object and its field, as `Sale__c.Amount__c`")], ...
    ] = Field(
        default=(),
        description="Fields, as `Object.Field`, whose history `prepare` switches on where it is off. It stays on.",
    )


class Roles(Strict):
    """Who answers for the migration."""

    on_call: str | None = Field(default=None, description="Who is called when something breaks.")
    sign_off: tuple[str, ...] = Field(
        default=("Data Engineer", "DBA", "Business Owner", "QA Lead"), description="Roles that sign, before and after."
    )
    second_person_for: tuple[str, ...] = Field(
        default=(),
        description="Steps that need a second person's consent: `rollback`, `restore`, `purge`, `drop_backup`.",
    )


class Plan(Strict):
    """A whole plan file."""

    version: Annotated[Literal[1], Expect("`1`")] = Field(description="Version of the plan file's form: 1.")
    project: Annotated[str, Field(min_length=1), Expect("a name")] = Field(
        description="Name that all batches of this migration share; reports and sign-off can span it."
    )
    source: SourceSettings = Field(description="Where rows are read from.")
    target: TargetSettings = Field(description="The org that is written to.")
    audit: AuditSettings = Field(
        default=AuditSettings(), description="The database that accounts for every chunk and job."
    )
    staging: str = Field(
        default="state/staging",
        min_length=1,
        description="Folder of staged files, ledger and images, or `s3://bucket/prefix`.",
    )
    retention: Retention = Field(default=Retention(), description="What stays on disk and in the audit database.")
    tables: Annotated[tuple[TablePlan, ...], Field(min_length=1)] = Field(
        description="Tables to move. Parents are loaded before children, whatever the order here."
    )
    chunks: Chunks = Field(default=Chunks(), description="How tables are cut.")
    limits: Limits = Field(default=Limits(), description="What a batch may use of org and machine.")
    prepare: Prepare = Field(default=Prepare(), description="What `prepare` does to the org.")
    thresholds: dict[str, Annotated[float, Field(ge=0)]] = Field(
        default={}, description="Alert thresholds that differ from the defaults below."
    )
    notify: dict[str, Any] = Field(
        default={}, description="Who is told what, and how: `channels`, `audiences`, `events`."
    )
    roles: Roles = Field(default=Roles(), description="Who answers for the migration.")

    def table(self, name: str) -> TablePlan:
        """The table plan of that name; raises KeyError."""
        for table in self.tables:
            if table.table == name:
                return table
        raise KeyError(name)
