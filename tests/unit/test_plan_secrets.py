"""Secrets: read from environment and files, refused when written out, and never shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from forcelift.errors import PlanError
from forcelift.plan import load_plan, masked_url, plan_document
from forcelift.plan.document import document_text
from forcelift.plan.urls import holds_literal_secret

SECRET = "hunter2secret"
TABLES = """
tables:
  - {table: T, object: Thing__c, key: ID, external_id: Ext__c, fields: {ID: Ext__c}}
"""


def write(tmp_path: Path, source: str, rest: str = 'target: {url: "twin:org.duckdb"}') -> Path:
    path = tmp_path / "plan.yaml"
    path.write_text(f"version: 1\nproject: P\nsource: {source}\n{rest}{TABLES}")
    return path


def refused(path: Path, **env: str) -> str:
    with pytest.raises(PlanError) as caught:
        load_plan(path, env=env)
    shown = f"{caught.value} {caught.value!r} {caught.value.state} {caught.value.hint} {caught.value.problems!r}"
    assert SECRET not in shown
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
    return str(caught.value)


def test_secrets_come_from_environment_and_files_and_appear_nowhere(tmp_path: Path) -> None:
    (tmp_path / "pw").write_text(f"{SECRET}\n")
    (tmp_path / "pw").chmod(0o600)
    path = write(tmp_path, '{url: "oracle://db/service", user: "${U}", password: "file:pw"}',
                 'audit: {url: "postgresql://audit:${A}@db/audit"}\ntarget: {url: "twin:o.duckdb"}')  # fmt: skip
    loaded = load_plan(path, env={"U": "etl", "A": f"{SECRET}@/?#"})
    assert loaded.plan.source.password is not None
    assert loaded.plan.source.password.get_secret_value() == SECRET
    assert loaded.plan.source.user == "etl"
    assert loaded.audit_url() == f"postgresql://audit:{SECRET}%40%2F%3F%23@db/audit"
    document = plan_document(loaded.plan)
    for text in (repr(loaded), str(loaded.plan), loaded.text, document_text(document), loaded.plan.model_dump_json()):
        assert SECRET not in text
    assert document["source"] | {"limits": None} == {
        "url": "oracle://db/service",
        "user": "etl",
        "password": "***",
        "encoding": "utf-8",
        "timezone": None,
        "lost_snapshot": "per_chunk",
        "limits": None,
    }
    assert document["audit"] == {"url": "postgresql://audit:***@db/audit", "user": None, "password": None}


def test_another_password_is_the_same_plan(tmp_path: Path) -> None:
    path = write(tmp_path, '{url: "postgresql://u:${A}@db/x", password: "${B}"}'.replace(', password: "${B}"', ""))
    one = load_plan(path, env={"A": "first"})
    assert one.sha256 == load_plan(path, env={"A": "second"}).sha256
    whole = write(tmp_path, "{url: '${URL}'}")
    assert load_plan(whole, env={"URL": f"postgresql://u:{SECRET}@db/x"}).sha256 == one.sha256
    assert load_plan(whole, env={"URL": f"postgresql://u:{SECRET}@other/x"}).sha256 != one.sha256


@pytest.mark.parametrize(
    "source",
    [
        f"{{url: 'postgresql://db/x', password: {SECRET}}}",
        f"{{url: 'postgresql://db/x', password: '{SECRET}${{A}}'}}",
        f"{{url: 'postgresql://u:{SECRET}@db/x'}}",
        f"{{url: 'postgresql://u:{SECRET}${{A}}@db/x'}}",
        f"{{url: 'postgresql://u:{SECRET}@y@db/x'}}",
        f"{{url: 'postgresql://u:a/{SECRET}@db/x'}}",
        f"{{url: 'postgresql://u:a?{SECRET}@db/x'}}",
        f"{{url: 'postgresql://u:a#{SECRET}@db/x'}}",
        f"{{url: 'oracle://scott/{SECRET}@KPCPROD'}}",
        f"{{url: 'oracle+oracledb://scott:{SECRET}@KPCPROD'}}",
        f"{{url: 'postgresql://db/x?user=a&password={SECRET}'}}",
        f"{{url: 'postgresql://db/x?sslpassword={SECRET}'}}",
        f"{{url: 'postgresql://u@db/x?ACCESS_TOKEN={SECRET}'}}",
        f"{{url: 'duckdb:///x.db?motherduck_token={SECRET}'}}",
        f"{{url: 'mysql://u:{SECRET}@db/x'}}",
        f"{{url: 'postgresql://db/x', passwrd: {SECRET}}}",
        f"{{url: 'postgresql://db/x', password: *{SECRET}}}",
        f"{{url: 'postgresql://db/x', password: !{SECRET} }}",
        f"{{url: 'postgresql://db/x', password: !{SECRET} x}}",
        f"{{url: 'postgresql://db/x', password: [{SECRET}]}}",
        f"{{url: 'postgresql://db/x', password: {{{SECRET}: 1}}}}",
        f"{{url: 'postgresql://db/x', password:{SECRET}}}",
        f"password:{SECRET}",
        f"[{SECRET}]",
    ],
)
def test_secrets_that_are_written_out_are_refused_and_not_repeated(tmp_path: Path, source: str) -> None:
    told = refused(write(tmp_path, source), A="a")
    assert "line 3" in told


@pytest.mark.parametrize(
    "auth",
    [
        f"{{flow: token, access_token: {SECRET}}}",
        f"{{flow: client_credentials, client_id: a, client_secret: {SECRET}}}",
        f"{{flow: jwt, client_id: a, username: b, private_key: '-----BEGIN {SECRET}'}}",
        f"client_secret:{SECRET}",
    ],
)
def test_secrets_of_the_target_are_refused(tmp_path: Path, auth: str) -> None:
    rest = f'target:\n  url: "https://x.my.salesforce.com"\n  auth: {auth}'
    assert "line 6" in refused(write(tmp_path, '{url: "sqlite:///a"}', rest))


@pytest.mark.parametrize(
    "rest",
    [
        f'target: {{url: "https://u:{SECRET}@x.my.salesforce.com", auth: {{flow: sf_cli, alias: a}}}}',
        f'target: {{url: "https://x.my.salesforce.com?access_token={SECRET}", auth: {{flow: sf_cli, alias: a}}}}',
        f'target: {{url: "twin:o"}}\nstaging: "s3://key:{SECRET}@bucket/x"',
        f'target: {{url: "twin:o"}}\naudit: {{url: "oracle://u:{SECRET}@db/x"}}',
        f'target: {{url: "twin:o"}}\nnotify: {{channels: {{slack: {{webhook: "https://h.example/{SECRET}ABCDEFGH"}}}}}}',
        f'target: {{url: "twin:o"}}\nnotify: {{channels: {{mail: {{url: "smtp://u:{SECRET}@mail"}}}}}}',
        f'target: {{url: "twin:o"}}\nnotify: {{channels: {{phone: {{auth_token: {SECRET}}}}}}}',
        f'target: {{url: "twin:o"}}\nnotify: {{channels: [ "https://u:{SECRET}@h.example" ]}}',
    ],
)
def test_secrets_elsewhere_are_refused(tmp_path: Path, rest: str) -> None:
    refused(write(tmp_path, '{url: "sqlite:///a"}', rest))


def test_secrets_of_notify_are_read_and_masked(tmp_path: Path) -> None:
    rest = 'target: {url: "twin:o"}\nnotify: {channels: {slack: {webhook: "${HOOK}", audience: team, retries: 3}}}'
    loaded = load_plan(write(tmp_path, '{url: "sqlite:///a"}', rest), env={"HOOK": f"https://hooks/{SECRET}"})
    slack = loaded.plan.notify["channels"]["slack"]
    assert slack["webhook"].get_secret_value() == f"https://hooks/{SECRET}"
    assert (slack["audience"], slack["retries"]) == ("team", 3)
    assert SECRET not in repr(loaded)
    assert plan_document(loaded.plan)["notify"]["channels"]["slack"]["webhook"] == "***"


@pytest.mark.parametrize(
    ("password", "expected"),
    [
        ("${NOT_SET}", "line 3: `source.password`: the environment variable `NOT_SET` is not set"),
        ("${EMPTY}", "line 3: `source.password`: the environment variable `EMPTY` is empty"),
        ("file:none", "line 3: `source.password`: the secret's file `none` cannot be read: No such file or directory"),
        ("file:.", "line 3: `source.password`: the secret's file `.` cannot be read: Is a directory"),
        ("file:", "line 3: `source.password`: `file:` names no file"),
        ("file:empty", "line 3: `source.password`: the secret's file `empty` is empty"),
        ("file:binary", "line 3: `source.password`: the secret's file `binary` is not UTF-8"),
        ("file:large", "line 3: `source.password`: the secret's file `large` is larger than 64 KiB"),
        ("", "line 3: `source.password`: a secret is written out (write `${PASSWORD}` or `file:PATH`)"),
    ],
)
def test_references_that_lead_nowhere(tmp_path: Path, password: str, expected: str) -> None:
    for name, content in (("empty", b"\n"), ("binary", b"\xff\xfe"), ("large", b"x" * 70_000)):
        (tmp_path / name).write_bytes(content)
        (tmp_path / name).chmod(0o600)
    path = write(tmp_path, f'{{url: "postgresql://db/x", password: "{password}"}}')
    assert expected in refused(path, EMPTY="")


@pytest.mark.parametrize("user", ["${DB_PASSWORD}", "etl${DB_PASSWORD}", "${sf_token}"])
def test_a_secret_is_not_put_where_its_value_is_shown(tmp_path: Path, user: str) -> None:
    path = write(tmp_path, f'{{url: "postgresql://db/x", user: "{user}", password: "${{DB_PASSWORD}}"}}')
    told = refused(path, DB_PASSWORD=SECRET, sf_token=SECRET)
    assert "is a secret by its name, and the value of `user` is shown" in told
    assert SECRET not in told


def test_a_secret_file_that_others_can_read_gives_a_warning(tmp_path: Path) -> None:
    (tmp_path / "pw").write_text(SECRET)
    (tmp_path / "pw").chmod(0o640)
    loaded = load_plan(write(tmp_path, '{url: "postgresql://db/x", password: "file:pw"}'), env={})
    assert [str(one) for one in loaded.warnings] == [
        "line 3: `source.password`: others can read the secret's file `pw`; run `chmod 600` on it"
    ]


def test_a_password_in_a_comment_is_masked_in_the_text(tmp_path: Path) -> None:
    path = write(tmp_path, f'{{url: "postgresql://u:${{A}}@db/x"}} # was postgresql://u:{SECRET}@db/x')
    text = load_plan(path, env={"A": "a"}).text
    assert SECRET not in text
    assert "postgresql://u:${A}@db/x" in text


@pytest.mark.parametrize(
    ("url", "masked", "is_literal"),
    [
        ("postgresql://db/x", "postgresql://db/x", False),
        ("postgresql://u@db:5432/x?application_name=a@b", "postgresql://u@db:5432/x?application_name=a@b", False),
        ("postgresql://db:5432/x?application_name=a@b", "postgresql://db:5432/x?application_name=a@b", False),
        ("postgresql://u:p@db/x?sslmode=require&password=q",
         "postgresql://u:***@db/x?sslmode=require&password=***", True),
        ("postgresql://u:${P}@db/x", "postgresql://u:***@db/x", False),
        ("sqlite:///a:b@c.db", "sqlite:///a:b@c.db", False),
        ("oracle://scott/tiger@PROD", "oracle://scott/***@PROD", True),
        ("postgresql://u@db/x?passfile=/home/u/.pgpass", "postgresql://u@db/x?passfile=/home/u/.pgpass", False),
        ("files:./a@b", "files:./a@b", False),
    ],
)  # fmt: skip
def test_masks(url: str, masked: str, is_literal: bool) -> None:
    assert masked_url(url) == masked
    assert holds_literal_secret(url) is is_literal
