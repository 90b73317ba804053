"""Through a company's proxy to an org with a private certificate authority: a whole run, and every way it can fail."""

from __future__ import annotations

import base64
import io
import json
import logging
import socket
import ssl
from collections.abc import Iterator
from contextlib import closing, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pytest
from tests.proxy_support import ORG_HOST, Proxy, make_authority, running_proxy, tls_front

from forcelift.cli.main import run_command
from forcelift.errors import OrgUnavailable, TargetError, UsageError
from forcelift.salesforce import AuthSettings, connect
from forcelift.salesforce.client import HttpSettings
from forcelift.twin.org import TwinOrg
from forcelift.twin.schema_file import schema_from_dict
from forcelift.twin.server import TwinServer

PASSWORD = "etl:s3cret%2Fw0rd"
VARIABLES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR")
ONCE = HttpSettings(get_attempts=1)
SCHEMA = {
    "objects": {
        "Shop__c": {"fields": {"Code__c": {"type": "string", "length": 20, "externalId": True, "unique": True}}}
    }
}
PLAN = """\
version: 1
project: behind a proxy
source: {{url: "duckdb:///source.duckdb"}}
target:
  url: {url}
  auth: {{flow: token, access_token: "${{PROXY_TEST_TOKEN}}"}}
  {ca}
tables:
  - {{table: shops, object: Shop__c, key: code, external_id: Code__c, fields: {{code: Code__c, name: Name}}}}
chunks: {{rows: 5}}
"""


@dataclass
class Company:
    """A twin behind TLS, known by a name that only the proxy resolves."""

    folder: Path
    server: TwinServer
    front: int
    ca_file: Path
    certificate: Path
    key: Path

    @property
    def names(self) -> dict[str, tuple[str, int]]:
        return {f"{ORG_HOST}:443": ("127.0.0.1", self.front), f"{ORG_HOST}:{self.front}": ("127.0.0.1", self.front)}

    def connect(self, url: str = f"https://{ORG_HOST}", *, ca_file: Path | None = None) -> None:
        """Sign in and out again, each request once."""
        auth = AuthSettings(flow="token", access_token=self.server.access_token)
        org = connect(url, auth=auth, ca_file=str(ca_file or self.ca_file), http=ONCE)
        org.close()


@pytest.fixture
def company(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Company]:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    ca_file, certificate, key = make_authority(tmp_path, ORG_HOST, "localhost")
    with (
        closing(TwinOrg.open(tmp_path / "org.duckdb", schema=schema_from_dict(SCHEMA))) as org,
        TwinServer(org) as server,
        tls_front(server.port, certificate=certificate, key=key) as front,
    ):
        monkeypatch.setenv("PROXY_TEST_TOKEN", server.access_token)
        yield Company(folder=tmp_path, server=server, front=front, ca_file=ca_file, certificate=certificate, key=key)


def run(company: Company, *, ca: str) -> tuple[int, str, str]:
    with closing(duckdb.connect(str(company.folder / "source.duckdb"))) as source:
        source.execute("CREATE TABLE shops AS SELECT 'S' || i AS code, 'Shop ' || i AS name FROM range(12) AS r(i)")
    plan = company.folder / "forcelift.yaml"
    plan.write_text(PLAN.format(url=f"https://{ORG_HOST}", ca=ca), encoding="utf-8")
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = run_command(["run", "--plan", str(plan), "--json"])
    return int(code), out.getvalue(), err.getvalue()


def assert_secret_is_kept(*texts: str) -> None:
    whole = "".join(texts)
    for secret in (PASSWORD, "s3cret", "w0rd", base64.b64encode(b"etl:s3cret/w0rd").decode()):
        assert secret not in whole


@pytest.mark.parametrize("trust", ["plan", "environment"])
def test_a_run_through_a_proxy_with_a_password(
    trust: str, company: Company, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """All requests of a run by CONNECT; the org's certificate is trusted by `target.ca_file` or by SSL_CERT_FILE."""
    caplog.set_level(logging.DEBUG)
    with running_proxy(Proxy(names=company.names, password="etl:s3cret/w0rd")) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://{PASSWORD}@127.0.0.1:{proxy.port}")
        if trust == "environment":
            monkeypatch.setenv("SSL_CERT_FILE", str(company.ca_file))
        # A relative path starts at the plan's folder, as all paths of a plan do.
        code, out, err = run(company, ca="ca_file: company-ca.pem" if trust == "plan" else "")
    assert code == 0, err
    assert json.loads(out)["tables"][0]["created"] == 12
    assert set(proxy.asked) == {f"CONNECT {ORG_HOST}:443"}
    assert caplog.records
    assert_secret_is_kept(caplog.text, out, err)


def test_an_untrusted_certificate_is_told_with_a_hint(company: Company, monkeypatch: pytest.MonkeyPatch) -> None:
    with running_proxy(Proxy(names=company.names)) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
        code, out, err = run(company, ca="")
    assert code == 5
    assert f"the certificate of `{ORG_HOST}` is not trusted" in err
    assert "`target.ca_file`" in err
    assert "Traceback" not in err + out


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "ALL_PROXY"])
def test_a_proxy_that_is_spoken_to_by_tls_may_have_a_certificate_of_the_company_too(
    variable: str, company: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        running_proxy(Proxy(names=company.names, password="etl:s3cret/w0rd")) as proxy,
        tls_front(proxy.port, certificate=company.certificate, key=company.key) as front,
    ):
        monkeypatch.setenv(variable, f"https://{PASSWORD}@localhost:{front}")
        code, out, err = run(company, ca="ca_file: company-ca.pem")
        assert code == 0, err
        assert json.loads(out)["tables"][0]["created"] == 12
        asked = len(proxy.asked)
        assert asked > 0
        # What is excepted goes straight, to a name that nobody but the proxy knows.
        for names in ("*", ORG_HOST):
            monkeypatch.setenv("NO_PROXY", names)
            with pytest.raises(OrgUnavailable):
                company.connect()
        assert len(proxy.asked) == asked
    assert_secret_is_kept(out, err)


def test_a_certificate_of_another_host_is_told_apart(
    company: Company, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    ca_file, certificate, key = make_authority(other, "elsewhere.example.test")
    with (
        tls_front(company.server.port, certificate=certificate, key=key) as front,
        running_proxy(Proxy(names={f"{ORG_HOST}:443": ("127.0.0.1", front)})) as proxy,
    ):
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
        with pytest.raises(TargetError, match="is not trusted") as caught:
            company.connect(ca_file=ca_file)
    assert caught.value.hint == "check the host in `target.url`"


def test_a_wrong_password_of_the_proxy_does_not_wait_for_the_org(
    company: Company, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with running_proxy(Proxy(names=company.names, password="etl:other")) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://{PASSWORD}@127.0.0.1:{proxy.port}")
        code, out, err = run(company, ca="ca_file: company-ca.pem")
    assert code == 5
    assert f"the proxy `127.0.0.1:{proxy.port}` refuses the user and password" in " ".join(err.split())
    assert "`HTTPS_PROXY`" in err
    assert proxy.asked == [f"CONNECT {ORG_HOST}:443"]
    assert_secret_is_kept(caplog.text, out, err)


@pytest.mark.parametrize(
    ("status", "kind", "says"),
    [
        (403, TargetError, "does not let us through"),
        (502, OrgUnavailable, "does not reach"),
        (503, OrgUnavailable, "does not reach"),
    ],
)
def test_what_a_proxy_refuses_for_good_and_for_now(
    status: int, kind: type[TargetError], says: str, company: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running_proxy(Proxy(names=company.names, refuse=status)) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
        with pytest.raises(TargetError, match=says) as caught:
            company.connect()
    assert type(caught.value) is kind
    assert f"HTTP {status}" in caught.value.message
    assert f"127.0.0.1:{proxy.port}" in caught.value.message


def test_a_proxy_that_is_not_there_is_named(company: Company, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        monkeypatch.setenv("https_proxy", f"http://{PASSWORD}@127.0.0.1:{port}")
        with pytest.raises(OrgUnavailable) as caught:
            company.connect()
    assert f"`127.0.0.1:{port}`" in str(caught.value.hint)
    assert_secret_is_kept(str(caught.value), str(caught.value.hint))


def test_no_proxy_goes_straight(company: Company, monkeypatch: pytest.MonkeyPatch) -> None:
    """The host is reached directly where NO_PROXY names it, or the domain above it."""
    resolve = socket.getaddrinfo

    def resolved(host: Any, *rest: Any, **named: Any) -> Any:
        return resolve("127.0.0.1" if host in (ORG_HOST, ORG_HOST.encode()) else host, *rest, **named)

    with running_proxy(Proxy(names=company.names)) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
        company.connect(f"https://{ORG_HOST}:{company.front}")
        seen = len(proxy.asked)
        assert seen > 0
        monkeypatch.setattr(socket, "getaddrinfo", resolved)
        for exempt in (ORG_HOST, "other.test,.example.test", "*"):
            monkeypatch.setenv("NO_PROXY", exempt)
            company.connect(f"https://{ORG_HOST}:{company.front}")
        assert len(proxy.asked) == seen


def test_this_machine_is_reached_without_any_proxy(company: Company, monkeypatch: pytest.MonkeyPatch) -> None:
    """Plain HTTP to a twin on loopback: its token never crosses a proxy, whatever the environment says."""
    place = {f"127.0.0.1:{company.server.port}": ("127.0.0.1", company.server.port)}
    with running_proxy(Proxy(names=place)) as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        company.connect(company.server.url)
        assert proxy.asked == []
        # The proxy would have taken it: what is proved is that it was not asked.
        with closing(socket.create_connection(("127.0.0.1", proxy.port))) as plain:
            plain.sendall(f"GET {company.server.url}/services/data HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            assert plain.recv(1000).startswith(b"HTTP/1.1 200")
        assert proxy.asked == [f"GET {company.server.url}/services/data"]


@pytest.mark.parametrize(
    "setting", ["http://etl:s3cret/w0rd@proxy:3128", "socks5://etl:s3cret@proxy:1080", "ftp://etl:s3cret@proxy"]
)
def test_a_setting_that_cannot_be_used_is_told_without_its_password(
    setting: str, company: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", setting)
    code, out, err = run(company, ca="ca_file: company-ca.pem")
    assert code == 2
    assert "HTTPS_PROXY" in err
    assert "SOCKS proxies are not supported" in err
    assert "Traceback" not in err
    assert_secret_is_kept(out, err)
    with pytest.raises(UsageError) as caught:
        company.connect()
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("content", [None, b"no certificate"])
def test_certificate_files_that_cannot_be_read(
    content: bytes | None, company: Company, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "broken.pem"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UsageError, match=r"`target\.ca_file` cannot be read"):
        company.connect(ca_file=file)
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    with pytest.raises(UsageError, match="`SSL_CERT_FILE` cannot be read") as caught:
        company.connect()
    assert isinstance(caught.value.__cause__, OSError | ssl.SSLError)
