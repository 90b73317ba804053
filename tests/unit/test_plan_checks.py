"""What the parts of a plan must hold together: one case for each sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from forcelift.errors import PlanError
from forcelift.plan import load_plan, unsupported
from forcelift.plan.expressions import constant_form
from forcelift.plan.load import LoadedPlan
from forcelift.plan.thresholds import threshold_values
from forcelift.plan.windows import WINDOW_FORM
from forcelift.plan.zones import codec_name

HEAD = """\
version: 1
project: P
"""
SOURCE = 'source: {url: "sqlite:///a.db"}\n'
TARGET = 'target: {url: "twin:org.duckdb"}\n'
PARENT = """\
tables:
  - {table: PARENT, object: Parent__c, key: CODE, external_id: Code__c, fields: {CODE: Code__c}}
"""
SERVERS = {"A": "a"}


def load(tmp_path: Path, text: str) -> LoadedPlan:
    path = tmp_path / "plan.yaml"
    path.write_text(text)
    return load_plan(path, env=SERVERS)


def told(tmp_path: Path, text: str) -> list[str]:
    with pytest.raises(PlanError) as caught:
        load(tmp_path, text)
    assert all(problem.line is not None for problem in caught.value.problems)
    return [f"{problem.path}: {problem.message}" for problem in caught.value.problems]


def table(*lines: str, key: str = "ID", fields: str = "{ID: Ext__c, N: N__c}") -> str:
    start = f"  - table: T\n    object: Thing__c\n    key: {key}\n    external_id: Ext__c\n    fields: {fields}\n"
    return HEAD + SOURCE + TARGET + PARENT + start + "".join(f"    {line}\n" for line in lines)


FILLED = "is the external ID and is"


@pytest.mark.parametrize(
    ("lines", "key", "fields", "expected"),
    [
        ([], "ID", "{N: Ext__c}", f"fields.N: `Ext__c` {FILLED} filled from the key `ID`; nothing else may fill it"),
        (["constants: {EXT__C: a}"], "ID", "{N: N__c}",
         f"constants.EXT__C: `EXT__C` {FILLED} filled from the key `ID`; nothing else may fill it"),
        (["computed: {Ext__c: {concat: [A]}}"], "ID", "{ID: Ext__c}",
         f"computed.Ext__c: `Ext__c` {FILLED} filled from the key `ID`; nothing else may fill it"),
        ([], "[ID, N]", "{ID: Ext__c}",
         f"fields.ID: `Ext__c` {FILLED} joined from the key's columns; nothing else may fill it"),
        ([], "[ID, ID]", "{N: N__c}", "key: the key names a column twice"),
        ([], "ID", "{ID: {field: Ext__c, values: {A: B}}}",
         "fields.ID.values: `values` cannot stand at the key: a key is taken as it is, so that every run finds the "
         "same record"),
        ([], "ID", "{ID: {field: Ext__c, too_long: truncate}}",
         "fields.ID.too_long: `too_long` cannot stand at the key: a key longer than its field is rejected, never cut"),
        ([], "ID", "{ID: {field: Ext__c, empty: {default: X}}}",
         "fields.ID.empty: a default cannot stand at the key: all rows without a key would be one record"),
        ([], "ID", "{ID: Ext__c, A: N__c, B: n__C}",
         "fields.B: `n__C` is filled twice: by column `B`, and by column `A` in line 11"),
        (["constants: {N__c: x}"], "ID", "{A: N__c}",
         "constants.N__c: `N__c` is filled twice: by a constant, and by column `A` in line 11"),
        (["computed: {P__c: {concat: [A]}}"], "ID", "{A: {field: P__r.Code__c, parent: PARENT}}",
         "computed.P__c: `P__c` is filled twice: by a computed value, and by column `A` in line 11"),
        ([], "ID", "{A: Account.Ext__c, B: AccountId}",
         "fields.B: `AccountId` is filled twice: by column `B`, and by column `A` in line 11"),
        ([], "ID", "{A: {field: P__r.Code__c, parent: PARNT}}", "fields.A.parent: the plan has no table `PARNT`"),
        ([], "ID", "{A: {field: P__c, parent: PARENT}}",
         "fields.A.field: a lookup goes through its relationship to the parent's external ID"),
        ([], "ID", "{A: {field: P__r.Name, parent: PARENT}}",
         "fields.A.field: the lookup finds parents by `Name`, but `PARENT` is loaded by `Code__c`"),
        ([], "ID", "{A: {field: P__r.Code__c, missing_parent: to_null}}",
         "fields.A.missing_parent: `missing_parent` needs `parent`"),
        ([], "ID", "{A: {field: A__c, unmapped: keep}}", "fields.A.unmapped: `unmapped` needs `values`"),
        ([], "ID", "{A: {field: A__c, merge: sum}}", "fields.A.merge: `merge` needs `duplicates: merge`"),
        ([], "ID", "{A: {field: A__c, date_format: DD}}", "fields.A.date_format: the format names no part of a date"),
        ([], "ID", "{A: {field: A__c, encoding: TIS-621}}", "fields.A.encoding: there is no such encoding of text"),
        (["encoding: base64"], "ID", "{A: A__c}", "encoding: there is no such encoding of text"),
        (["timezone: +07:00"], "ID", "{A: A__c}", "timezone: there is no such time zone"),
        ([], "ID", "{A: {field: A__c, timezone: Asia}}", "fields.A.timezone: there is no such time zone"),
        (["duplicates: keep_latest"], "ID", "{A: A__c}", "duplicates: `keep_latest` needs `changed_at`"),
        (["created_field: Made__c"], "ID", "{A: A__c}", "created_field: nothing fills `Made__c`"),
        (["constants: {RecordTypeId: {recordtype: R}}"], "ID", "{A: A__c}",
         "constants.RecordTypeId: a constant is a text, `{record_type: NAME}` or `{owner: USERNAME}`"),
        (["constants: {OwnerId: {record_type: R}}"], "ID", "{A: A__c}",
         "constants.OwnerId: `record_type` fills `RecordTypeId` only"),
        (["constants: {OwnerId: {owner: ' '}}"], "ID", "{A: A__c}", "constants.OwnerId: `owner` names nothing"),
        (["constants: {No Name: x}"], "ID", "{A: A__c}", "constants.No Name: this is no name of a field"),
        (["constants: {A..B: x}"], "ID", "{A: A__c}", "constants.A..B: this is no name of a field"),
        (["computed: {N__c: {}}"], "ID", "{A: A__c}", "computed.N__c: a computed field is exactly one expression"),
        (["computed: {N__c: {conct: [A]}}"], "ID", "{A: A__c}", "computed.N__c: there is no expression `conct`"),
        (["computed: {N__c: {concat: A}}"], "ID", "{A: A__c}",
         "computed.N__c.concat: `concat` takes a list of columns and texts"),
        (["computed: {N__c: {concat: [A, {txt: b}]}}"], "ID", "{A: A__c}",
         "computed.N__c.concat[2]: there is no expression `txt`"),
        (["computed: {N__c: {part: A}}"], "ID", "{A: A__c}",
         "computed.N__c.part: `part` takes a map that names its column"),
        (["computed: {N__c: {add: [A]}}"], "ID", "{A: A__c}",
         "computed.N__c.add: `add` takes a list of two or more columns and numbers"),
        (["checks: [{name: c, sum: A}]"], "ID", "{A: A__c}",
         "checks.c: a check has either `sum` and `by`, or `sql` and `soql`"),
        (["checks: [{name: c, sum: A, by: A, sql: x, soql: y}]"], "ID", "{A: A__c}",
         "checks.c: a check has either `sum` and `by`, or `sql` and `soql`"),
        (["checks: [{name: c}]"], "ID", "{A: A__c}",
         "checks.c: a check has either `sum` and `by`, or `sql` and `soql`"),
        (["checks: [{name: c, sum: A, by: B}]"], "ID", "{A: A__c}",
         "checks.c.by: `B` is not mapped, so the org has nothing to compare"),
        (["checks: [{name: c, sql: a, soql: b}, {name: c, sql: a, soql: b}]"], "ID", "{A: A__c}",
         "checks.c: two checks have the name `c`"),
        (["checks: [{name: c, sql: a, soql: b, tolerance: -1}]"], "ID", "{A: A__c}",
         'checks.c.tolerance: must be a plain decimal such as `"0.01"`, not `-1`'),
        ([], "ID", "{A: {field: A__c, personal: yes}}", "fields.A.personal: must be `true` or `false`, not `yes`"),
        (["nulls: leaf"], "ID", "{A: A__c}", "nulls: must be `clear` or `leave`, not `leaf`"),
        ([], "[]", "{A: A__c}", "key: must not be empty; it is a column or a list of columns"),
        ([], "ID", "{}", "fields: must not be empty; it is a map"),
        ([], "ID", "{A: }", "fields.A: must be a field name, or a map with `field` and its rules, and is left empty"),
        ([], "ID", "{A: Bad Name}",
         "fields.A: must be a field such as `Name`, or for a lookup `Tenant__r.Tenant_Code__c`, not `Bad Name`"),
    ],
)  # fmt: skip
def test_tables(tmp_path: Path, lines: list[str], key: str, fields: str, expected: str) -> None:
    assert told(tmp_path, table(*lines, key=key, fields=fields)) == [f"tables.T.{expected}"]


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ('source: {url: "mysql://db/x"}', "source.url: there is no `mysql:` here"),
        ('source: {url: "postgresql+psycopg://db/x"}', "source.url: the driver is not for the plan to choose"),
        ('source: {url: "postgresql:///x"}', "source.url: the URL names no host"),
        ('source: {url: "postgresql://db:port/x"}', "source.url: the URL names no host"),
        ('source: {url: "sqlite://a.db"}', "source.url: the URL names no file"),
        ('source: {url: "sqlite:///:memory:"}', "source.url: a database in memory ends with the process"),
        ('source: {url: "sqlite:///data/${A}.db"}', None),
        ('source: {url: "files:"}', "source.url: the URL names no file"),
        ("source: {url: data}", "source.url: this is no URL"),
        ('source: {url: "sqlite:///a", user: b}', "source.user: `sqlite` sources have no sign-in"),
        ('source: {url: "oracle://u:${A}@db/x", password: "${A}"}', "source.password: the URL holds a password, too"),
        ('source: {url: "sqlite:///a", limits: {sessions: 2.5}}',
         "source.limits.sessions: must be a whole number from 1, not `2.5`"),
        ('source: {url: "sqlite:///a", encoding: rot13}', "source.encoding: there is no such encoding of text"),
        ("source: sqlite", "source: must be a map"),
        ("source:", "source: must be a map, and is left empty"),
        ('audit: {url: "duckdb:///a"}', "audit.url: there is no `duckdb:` here"),
        ('staging: "gs://b/x"', "staging: staging is a folder or an S3 bucket"),
        ('staging: "s3:///x"', "staging: the URL names no bucket"),
        ("retention: {staged_files: -1}", "retention.staged_files: must be `until_settled`, `until_done`, `keep` or a "
         "number of days, not `-1`"),
        ("limits: {window: 22-06}", f"limits.window: the hours are written as {WINDOW_FORM}"),
        ("limits: {window: ['22:00-06:00 UTC', 22-06]}", f"limits.window: the hours are written as {WINDOW_FORM}"),
        ("limits: {window: []}", "limits.window: must not be empty; it is hours such as `22:00-06:00 Asia/Bangkok`, or "
         "a list of them"),
        ('source: {url: "postgresql://db/x", limits: {sessions: 1}}',
         "source.limits.sessions: a PostgreSQL source takes two sessions at least"),
        ("limits: {staging_gb: 0}", "limits.staging_gb: must be a number above 0, not `0`"),
        ("limits: {staging_gb: .inf}", "limits.staging_gb: must be a number above 0, not `.inf`"),
        ("thresholds: {fail_rate_warnin: 1}", "thresholds.fail_rate_warnin: there is no such threshold"),
        ("thresholds: {fail_rate_warning: 6}", "thresholds.fail_rate_warning: `fail_rate_warning` 6 lies above "
         "`fail_rate_critical` 5"),
        ("thresholds: {disk_usage_critical: 101}", "thresholds.disk_usage_critical: a share in % goes from 0 to 100"),
        ("thresholds: {job_stale_minutes: soon}", "thresholds.job_stale_minutes: must be a number from 0, not `soon`"),
        ("notify: {channels: slack}", "notify.channels: must be a map or a list"),
        ("roles: {sign_off: DBA}", "roles.sign_off: must be a list"),
        ('target: {url: "https://x.my.salesforce.com"}', "target: `auth` is missing"),
        ('target: {url: "http://x.my.salesforce.com", auth: {flow: sf_cli, alias: a}}',
         "target.url: `http:` would send the token in the open"),
        ('target: {url: "https://x.my.salesforce.com/services", auth: {flow: sf_cli, alias: a}}',
         "target.url: the URL goes on after the host"),
        ('target: {url: "${A}", auth: {flow: sf_cli, alias: a}}', "target.url: `${ENV}` is read in secret fields only"),
        ('target: {url: "ftp://x", auth: {flow: sf_cli, alias: a}}', "target.url: the target is no org and no twin"),
        ('target: {url: "twin:"}', "target.url: the URL names no file"),
        ('target: {url: "twin:o", api_version: 66}', "target.api_version: must be a version such as `66.0`, not `66`"),
        ('target: {url: "http://127.0.0.1:8080", twin_schema: s}',
         "target.twin_schema: only a `twin:` url has a schema file"),
        ('target: {url: "https://x.my.salesforce.com", auth: {}}',
         "target.auth: neither `flow` nor `airflow_conn` is given"),
        ('target: {url: "https://x.my.salesforce.com", auth: {flow: sf_cli}}',
         "target.auth: `alias` is missing for `flow: sf_cli`"),
        ('target: {url: "https://x.my.salesforce.com", auth: {flow: sf_cli, alias: a, username: b}}',
         "target.auth.username: `flow: sf_cli` has no use for it"),
        ('target: {url: "https://x.my.salesforce.com", auth: {airflow_conn: a, alias: b}}',
         "target.auth.alias: `airflow_conn` brings all credentials itself"),
    ],
)  # fmt: skip
def test_settings(tmp_path: Path, lines: str, expected: str | None) -> None:
    defaults = {"source": SOURCE, "target": TARGET}
    rest = "".join(text for key, text in defaults.items() if not lines.startswith(f"{key}:"))
    text = f"{HEAD}{lines}\n{rest}{PARENT}"
    if expected is None:
        assert load(tmp_path, text).source_url().endswith("/data/a.db")
    else:
        assert told(tmp_path, text) == [expected]


def test_a_table_named_twice(tmp_path: Path) -> None:
    again = PARENT.removeprefix("tables:\n")
    assert told(tmp_path, HEAD + SOURCE + TARGET + PARENT + again) == [
        "tables.PARENT.table: the table `PARENT` is named twice, first in line 6"
    ]


def test_a_key_may_be_left_out_of_the_fields_or_fill_the_external_id(tmp_path: Path) -> None:
    assert load(tmp_path, table(fields="{N: N__c}")).plan.table("T").key == ("ID",)
    assert load(tmp_path, table(fields="{ID: ext__C}")).plan.table("T").key == ("ID",)
    assert load(tmp_path, table(fields="{ID: Other__c}")).plan.table("T").key == ("ID",)
    assert load(tmp_path, table(key="[A, B]", fields="{A: A__c}")).plan.table("T").key == ("A", "B")


@pytest.mark.parametrize(
    ("name", "python"),
    [
        ("TIS-620", "tis-620"),
        ("windows-874", "cp874"),
        ("Windows_874", "cp874"),
        ("cp874", "cp874"),
        ("iso-8859-11", "iso8859-11"),
        ("latin-1", "iso8859-1"),
        ("UTF-8", "utf-8"),
    ],
)
def test_encodings(name: str, python: str) -> None:
    assert codec_name(name) == python


@pytest.mark.parametrize("name", ["", "base64", "rot13", "zlib", "idna", "unicode_escape", "utf-9", "a\0b", "ไทย"])
def test_encodings_that_are_none(name: str) -> None:
    with pytest.raises(LookupError):
        codec_name(name)


def test_expressions_and_constants() -> None:
    assert constant_form("x") == ("text", "x")
    assert constant_form({"record_type": "Retail"}) == ("record_type", "Retail")
    assert constant_form({"owner": "a@b"}) == ("owner", "a@b")


def test_thresholds_have_the_values_of_the_checklist() -> None:
    assert threshold_values({"min_records_per_sec": 10}) == {
        "fail_rate_warning": 1.0,
        "fail_rate_critical": 5.0,
        "chunk_duration_warning": 600,
        "chunk_duration_critical": 1800,
        "min_records_per_sec": 10,
        "disk_usage_warning": 80,
        "disk_usage_critical": 95,
        "pending_chunks_warning": 100,
        "job_stale_minutes": 60,
    }


def test_what_is_not_built_yet_is_named_with_its_line(tmp_path: Path) -> None:
    loaded = load(
        tmp_path,
        """\
version: 1
project: P
source: {url: "oracle://u@db/x", limits: {rows_per_second: 10}}
target: {url: "https://x.my.salesforce.com", auth: {airflow_conn: a}}
audit: {url: "oracle://db/a"}
staging: "s3://b"
retention: {staged_files: 3}
limits: {window: "01:00-02:00 UTC"}
notify: {channels: {}}
tables:
  - table: T
    object: A__c
    key: ID
    external_id: Ext__c
    fields: {ID: Ext__c}
    duplicates: merge
    computed: {N__c: {coalesce: [A, B]}, M__c: {concat: [A]}}
""",
    )
    assert [(problem.path, problem.line) for problem in unsupported(loaded.plan, loaded.position)] == [
        ("staging", 6),
        ("notify", 9),
        ("target.auth.airflow_conn", 4),
    ]
    assert "staging on `s3:` is not built yet" in str(unsupported(loaded.plan)[0])
    assert unsupported(load(tmp_path, table()).plan) == []
