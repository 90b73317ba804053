"""Plan files as people write them: what is read, and what is said about what is wrong."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest

from forcelift.errors import ExitCode, PlanError, Problem, UsageError
from forcelift.plan import LoadedPlan, load_plan
from forcelift.plan.reference import example_text

GOOD = """\
version: 1
project: Rehearsal
source: {url: "sqlite:///data/source.db"}
target: {url: "twin:./org.duckdb"}
tables:
  - table: T
    object: Thing__c
    key: ID
    external_id: Ext__c
    fields:
      ID: Ext__c
      NAME: Name
"""


def load(tmp_path: Path, text: str | bytes, **env: str) -> LoadedPlan:
    path = tmp_path / "forcelift.yaml"
    path.write_bytes(text if isinstance(text, bytes) else dedent(text).encode())
    return load_plan(path, env=env)


def told(tmp_path: Path, text: str | bytes, **env: str) -> list[str]:
    with pytest.raises(PlanError) as caught:
        load(tmp_path, text, **env)
    assert caught.value.exit_code is ExitCode.USAGE
    assert caught.value.__cause__ is None or isinstance(text, bytes)
    return [str(problem) for problem in caught.value.problems]


def test_the_example_of_the_reference_is_a_good_plan(tmp_path: Path) -> None:
    (tmp_path / "server.key").write_text("-----BEGIN PRIVATE KEY-----\nabc\n")
    (tmp_path / "server.key").chmod(0o600)
    loaded = load(tmp_path, example_text(), ORACLE_USER="etl", ORACLE_PASSWORD="p", SF_CLIENT_ID="c")
    sales = loaded.plan.table("KPS_T_SALES_MD")
    assert loaded.plan.source.user == "etl"
    assert sales.fields["STATUS"].values == {"A": "Active", "C": "Closed"}
    assert sales.fields["STATUS"].empty == {"default": "Active"}
    assert sales.computed == {"Name": {"concat": ["TENANT_CODE", {"text": "-"}, "SALES_ID"]}}
    assert sales.checks[0].tolerance == "0.01"
    assert loaded.plan.limits.window is None
    assert loaded.warnings == ()
    assert loaded.plan.target.auth is not None
    assert loaded.plan.target.auth.private_key is not None
    assert loaded.plan.target.auth.private_key.get_secret_value() == "-----BEGIN PRIVATE KEY-----\nabc"


def test_scalars_that_are_texts_keep_the_text_of_the_file(tmp_path: Path) -> None:
    plan = load(
        tmp_path,
        """\
        version: 1
        project: 2024
        source: {url: "files:./in"}
        target: {url: "twin:org.duckdb"}
        tables:
          - table: 012
            object: Thing__c
            key: [1, 02]
            external_id: Ext__c
            fields:
              1: {field: A__c, empty: &e {default: 007}}
              true: {field: B__c, values: {Y: Yes, N: no, 012: 1.0, null: ~, 1.0: true, 1e3: 0x1F}, empty: *e}
            constants: {C__c: 1.50, D__c: 2024-01-01}
            computed: {E__c: {concat: [1, {text: 00}]}}
            checks: [{name: 1, sum: 1, by: true, tolerance: 0.010}]
        """,
    ).plan
    (table,) = plan.tables
    assert (plan.project, table.table, table.key) == ("2024", "012", ("1", "02"))
    assert table.fields["true"].values == {
        "Y": "Yes", "N": "no", "012": "1.0", "null": "~", "1.0": "true", "1e3": "0x1F",
    }  # fmt: skip
    assert table.fields["true"].empty == {"default": "007"}
    assert table.constants == {"C__c": "1.50", "D__c": "2024-01-01"}
    assert table.computed == {"E__c": {"concat": ["1", {"text": "00"}]}}
    assert table.checks[0].tolerance == "0.010"


def test_a_null_that_is_a_text_gives_a_warning(tmp_path: Path) -> None:
    loaded = load(tmp_path, GOOD + "      S: {field: S__c, values: {A: null, B: 'null'}}\n")
    assert [str(warning) for warning in loaded.warnings] == [
        'line 13: `tables.T.fields.S.values.A`: `null` is a text here, not a null (write "null" to say so)'
    ]


def test_anchors_and_merges_work(tmp_path: Path) -> None:
    plan = load(
        tmp_path,
        """\
        version: 1
        project: P
        source: {url: "duckdb:///in.duckdb"}
        target: {url: "twin:org.duckdb"}
        tables:
          - &first
            table: A
            object: A__c
            key: ID
            external_id: Ext__c
            fields: {ID: Ext__c, N: &rule {field: N__c, too_long: truncate}, M: {<<: *rule, field: M__c}}
          - {<<: *first, table: B}
        """,
    ).plan
    assert plan.table("B").object == "A__c"
    assert plan.table("B").fields["M"].too_long == "truncate"
    assert plan.table("B").fields["M"].field == "M__c"


def test_positions_follow_names(tmp_path: Path) -> None:
    loaded = load(tmp_path, GOOD)
    assert loaded.position("tables.T.fields.NAME") == (12, 7)
    assert loaded.position("tables.T.fields.NAME.too_long") == (12, 7)
    assert loaded.position("tables.T.external_id") == (9, 5)
    assert loaded.position("limits.memory_mb") == (1, 1)
    assert str(loaded.problem("the source lacks it", "tables.T.fields.NAME")) == (
        "line 12: `tables.T.fields.NAME`: the source lacks it"
    )


def test_problems_found_later_get_their_lines(tmp_path: Path) -> None:
    loaded = load(tmp_path, GOOD)
    found = [
        Problem(message="b", path="tables.T.fields.NAME"),
        Problem(message="a", path="target.url"),
        Problem(message="c"),
    ]
    assert [str(problem) for problem in loaded.error(found).problems] == [
        "c",
        "line 4: `target.url`: a",
        "line 12: `tables.T.fields.NAME`: b",
    ]


def test_relative_paths_start_at_the_plan(tmp_path: Path) -> None:
    loaded = load(tmp_path, GOOD)
    assert loaded.source_url() == f"sqlite:///{tmp_path.resolve()}/data/source.db"
    assert loaded.audit_url() == f"sqlite:///{tmp_path.resolve()}/state/audit.db"
    assert loaded.target_url() == f"twin:{tmp_path.resolve()}/org.duckdb"
    assert loaded.staging() == f"{tmp_path.resolve()}/state/staging"
    assert loaded.resolve("/a/b") == Path("/a/b")
    assert loaded.resolve("~no_such_user/b") == tmp_path.resolve() / "~no_such_user" / "b"
    assert loaded.folder == tmp_path.resolve()


def test_all_problems_are_listed_at_once_with_their_lines(tmp_path: Path) -> None:
    text = """\
        version: 2
        project: P
        source: {url: "sqlite:///a.db", encodng: utf-8, timezone: Asia/Bangkock}
        target: {url: "twin:org.duckdb"}
        limits: {parallel_jobs: 0, memory_mb: lots}
        tables:
          - table: PARENT
            object: A__c
            key: ID
            externl_id: Ext__c
            fields: {ID: Ext__c, N: {field: N__c, too_long: trunkate, empty: {defalt: x}}}
          - table: B
            object: B__c
            key: ID
            external_id: Ext__c
            duplicates: keep_latest
            fields: {ID: Ext__c, ID: Other__c, P: {field: A__r.Ext__c, parent: PARNT}}
        """
    assert told(tmp_path, text) == [
        "line 1: `version`: must be `1`, not `2`",
        "line 3: `source`: unknown key `encodng` (did you mean `encoding`?)",
        "line 3: `source.timezone`: there is no such time zone (did you mean `Asia/Bangkok`?)",
        "line 5: `limits.parallel_jobs`: must be a whole number from 1, not `0`",
        "line 5: `limits.memory_mb`: must be a whole number from 256, not `lots`",
        "line 7: `tables.PARENT.external_id`: is missing",
        "line 10: `tables.PARENT`: unknown key `externl_id` (did you mean `external_id`?)",
        "line 11: `tables.PARENT.fields.N.too_long`: must be `reject` or `truncate`, not `trunkate` "
        "(did you mean `truncate`?)",
        "line 11: `tables.PARENT.fields.N.empty`: must be `to_null`, `reject` or `{default: TEXT}`, "
        "not a map with `defalt`",
        "line 16: `tables.B.duplicates`: `keep_latest` needs `changed_at` "
        "(name the column with the time of the last change)",
        "line 17: `tables.B.fields`: the key `ID` is given twice, first in line 17",
        "line 17: `tables.B.fields.P.parent`: the plan has no table `PARNT` (did you mean `PARENT`?)",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "line 1: the file is empty (docs/reference/plan-file.md shows a whole plan)"),
        ("# nothing\n", "line 1: the file is empty (docs/reference/plan-file.md shows a whole plan)"),
        ("- a\n", "line 1: a plan is a map of keys and values, not a list"),
        ("plan\n", "line 1: a plan is a map of keys and values, not a single value"),
        ("a: 1\n---\nb: 2\n", "line 2: the file holds a second document (`---`) (one file is one plan)"),
        ("source:\n\turl: x\n", "line 2: a tab stands where YAML wants blanks (indent with blanks)"),
        ("a: {b: ${C}}\n", 'line 1: inside `{...}` and `[...]` a `${ENV}` must be quoted (write `"${ENV}"`)'),
        ("a: 'b\nc: d\n", "line 1: a quote that opens here is never closed"),
        ("a: @b\n", "line 1: a text cannot begin with `@` (put the text into quotes)"),
        ("a: b: c\n", "line 1: a `:` stands where no key can be "
         "(put a text that holds `: ` into quotes, and check the indentation)"),
        ("a:\n  - b\n  c: d\n", "line 3: the file is not YAML here: expected <block end>, but found '?' "
         "(check quotes, brackets and indentation)"),
        (b"version: 1\nproject: caf\xe9\n", "line 2: the file is not UTF-8 here (save the plan as UTF-8)"),
        ("a: \x01\n", "line 1: the file holds a character that YAML does not allow"),
        ("- " * 3000, "line 1: the file is nested deeper than 40 levels"),
        ("%YAML 1.9999999999999999999999999999999999\n---\na: 1\n", "line 1: the file is not YAML"),
    ],
)  # fmt: skip
def test_files_that_are_no_plan(tmp_path: Path, text: str | bytes, expected: str) -> None:
    assert told(tmp_path, text.encode() if isinstance(text, str) else text) == [expected]


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no plan file"):
        load_plan(tmp_path / "none.yaml", env={})
    with pytest.raises(UsageError, match="cannot be read: Is a directory"):
        load_plan(tmp_path, env={})
    with pytest.raises(UsageError, match="cannot be read"):
        load_plan("a\0b", env={})


def test_a_byte_order_mark_and_windows_line_ends_are_read(tmp_path: Path) -> None:
    plan = load(tmp_path, b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode()).plan
    assert plan.table("T").fields["NAME"].field == "Name"


def test_aliases_cannot_fill_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("forcelift.plan.shape.NODES_MAX", 20_000)
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    problems = told(tmp_path, "notify:\n  " + "\n  ".join(lines) + "\n")
    assert any("aliases make the plan larger than 20,000 values" in problem for problem in problems)


def test_an_alias_inside_its_own_thing_is_refused(tmp_path: Path) -> None:
    assert any("inside the thing that it names" in line for line in told(tmp_path, "notify: &n {a: *n}\n"))
    assert any("inside the thing that it names" in line for line in told(tmp_path, "notify: &n {<<: *n}\n"))


@pytest.mark.parametrize("key", ["? [a, b]\n: c\n", "? {a: b}\n: c\n"])
def test_keys_must_be_texts(tmp_path: Path, key: str) -> None:
    assert "line 1: a key must be a text" in told(tmp_path, key)


def test_tags_are_refused_without_being_repeated(tmp_path: Path) -> None:
    (problem,) = [line for line in told(tmp_path, "project: !hunter2 x\n") if "tags" in line]
    assert "hunter2" not in problem


def test_a_reference_outside_secret_fields_gives_a_warning(tmp_path: Path) -> None:
    loaded = load(tmp_path, GOOD.replace("Rehearsal", "${PROJECT}"), PROJECT="x")
    assert loaded.plan.project == "${PROJECT}"
    assert [str(one) for one in loaded.warnings] == [
        "line 2: `project`: `${ENV}` is read in secret fields only; here it stays as it stands"
    ]


def test_insert_gives_a_warning(tmp_path: Path) -> None:
    loaded = load(tmp_path, GOOD + "    operation: insert\n")
    assert "refused only if `Ext__c` is unique" in str(loaded.warnings[0])
    assert loaded.warnings[0].line == 13
