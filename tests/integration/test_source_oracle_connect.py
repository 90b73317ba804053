"""The ways to reach an Oracle database and to sign in, by the real driver against the test server."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.oracle_server.faults import Fault
from tests.oracle_server.server import PROFILES, OracleServer
from tests.oracle_support import PASSWORD, oracle
from tests.oracle_wallet_support import write_wallet

from forcelift.errors import PlanError, SourceError, SourceUnavailable
from forcelift.plan import load_plan
from forcelift.source import open_source
from forcelift.twin.tls import Certificate, own_certificate

__all__ = ["oracle"]

WALLET_PASSWORD = "Wallet_Secret_1"


def tables(url: str, user: str | None = "KPS", password: str | None = PASSWORD) -> list[str]:
    source = open_source(url, user=user, password=password)
    try:
        return source.tables()
    finally:
        source.close()


def test_a_sid_a_service_and_a_whole_description(oracle: OracleServer) -> None:
    place = f"127.0.0.1:{oracle.port}"
    assert tables(f"oracle://{place}/KPCPROD") == []
    assert tables(f"oracle://{place}?sid=KPC") == []
    described = (
        f"(DESCRIPTION=(ADDRESS=(PROTOCOL=TCP)(HOST=127.0.0.1)(PORT={oracle.port}))"
        "(CONNECT_DATA=(SERVICE_NAME=KPCPROD)))"
    )
    assert tables(f"oracle://{described}") == []
    assert tables(f"oracle://{described}?snapshot=none") == []
    with pytest.raises(SourceError, match="knows no such SID") as error:
        tables(f"oracle://{place}?sid=OTHER")
    assert not isinstance(error.value, SourceUnavailable)
    with pytest.raises(SourceUnavailable, match=r"DPY-6001|DPY-6005"):
        tables(f"oracle://{place}/OTHER")


def test_a_name_of_tnsnames(oracle: OracleServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tnsnames.ora").write_text(
        f"KPCPROD, KPC.WORLD =\n  (DESCRIPTION = (ADDRESS = (PROTOCOL = TCP)(HOST = 127.0.0.1)(PORT = {oracle.port}))\n"
        "    (CONNECT_DATA = (SERVER = DEDICATED)(SERVICE_NAME = KPCPROD)))\n"
    )
    assert tables(f"oracle://KPCPROD?config_dir={tmp_path}") == []
    assert tables(f"oracle://kpc.world?config_dir={tmp_path}") == []
    with pytest.raises(SourceError, match=r"no such name stands in tnsnames\.ora"):
        tables(f"oracle://KPCTEST?config_dir={tmp_path}")
    with pytest.raises(SourceError, match=r"tnsnames\.ora") as error:
        tables(f"oracle://KPCPROD?config_dir={tmp_path / 'none'}")
    assert "config_dir" in str(error.value.hint)


@pytest.fixture(params=PROFILES)
def secure(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[OracleServer, Certificate]]:
    """A server by TCPS alone, with a certificate that no public authority signed."""
    made = own_certificate(tmp_path / "server")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made.cert_file, made.key_file)
    with OracleServer(request.param, tls=context) as server:
        server.add_user("KPS", PASSWORD, "DBA")
        yield server, made


def test_tcps_trusts_only_whom_it_is_told_to(secure: tuple[OracleServer, Certificate]) -> None:
    server, made = secure
    url = f"oracle://localhost:{server.port}/KPCPROD?protocol=tcps"
    assert tables(f"{url}&ca_file={made.cert_file}") == []
    with pytest.raises(SourceError, match="certificate is not trusted") as error:
        tables(url)
    assert "ca_file" in str(error.value.hint)
    with pytest.raises(SourceError, match="does not exist"):
        tables(f"{url}&ca_file={made.cert_file}x")
    with pytest.raises(SourceError, match="cannot be read"):
        tables(f"{url}&ca_file={made.key_file}")


def test_tcps_by_a_wallet(secure: tuple[OracleServer, Certificate], tmp_path: Path) -> None:
    server, made = secure
    wallet = tmp_path / "wallet"
    wallet.mkdir()
    (wallet / "ewallet.pem").write_text(made.cert_file.read_text())
    url = f"oracle://localhost:{server.port}/KPCPROD?protocol=tcps&wallet_location={wallet}"
    assert tables(url) == []
    assert tables(f"{url}&ssl_server_dn_match=false") == []
    with pytest.raises(SourceError):
        tables(f"{url}x")


@pytest.fixture(params=PROFILES)
def asking(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[OracleServer, Path]]:
    """A server that asks its clients for a certificate, and the folder of the wallets that it trusts."""
    made = own_certificate(tmp_path / "server")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made.cert_file, made.key_file)
    context.verify_mode = ssl.CERT_REQUIRED
    for name, password in (("kps", None), ("stranger", None), ("hidden", WALLET_PASSWORD)):
        shown = write_wallet(tmp_path / name, trusts=made.cert_file, common_name=name, password=password)
        context.load_verify_locations(shown)
    with OracleServer(request.param, tls=context) as server:
        server.add_user("KPS", PASSWORD, "DBA").external = "CN=kps"
        server.add_user("OTHER", PASSWORD, "DBA").external = "CN=hidden"
        yield server, tmp_path


def test_the_certificate_of_a_wallet_says_who_signs_in(asking: tuple[OracleServer, Path]) -> None:
    server, folder = asking
    url = f"oracle://localhost:{server.port}/KPCPROD?protocol=tcps&external=true&wallet_location={folder}"
    source = open_source(f"{url}/kps", user=None, password=None)
    assert source.tables() == []
    assert isinstance(source.snapshot(), str)
    source.close()
    with pytest.raises(SourceError, match="ORA-01017") as error:
        tables(f"{url}/stranger", None, None)
    assert not isinstance(error.value, SourceUnavailable)
    with pytest.raises(SourceError):
        tables(f"{url}/none", None, None)
    with pytest.raises(SourceError, match="no password"):
        tables(f"{url}/kps", None, PASSWORD)


def test_a_wallet_under_a_password(asking: tuple[OracleServer, Path]) -> None:
    server, folder = asking
    url = f"oracle://localhost:{server.port}/KPCPROD?protocol=tcps&wallet_location={folder / 'hidden'}"
    assert tables(f"{url}&wallet_password={WALLET_PASSWORD}") == []
    assert tables(f"{url}&external=true&wallet_password={WALLET_PASSWORD}", None, None) == []
    for wrong in (f"{url}&wallet_password=wrong", url):
        with pytest.raises(SourceError, match="wallet") as error:
            tables(wrong)
        assert not isinstance(error.value, SourceUnavailable), "trying again opens no wallet"
        assert WALLET_PASSWORD not in str(error.value)
    with pytest.raises(SourceError, match="wallet"):
        tables(f"{url}x&wallet_password={WALLET_PASSWORD}")


def test_a_proxy_user_acts_as_another(oracle: OracleServer) -> None:
    oracle.add_user("LOADER", "Proxy_1", "CONNECT THROUGH KPS")
    oracle.add_user("STRANGER", "Proxy_2")
    url = f"oracle://127.0.0.1:{oracle.port}/KPCPROD"
    source = open_source(url, user="LOADER[KPS]", password="Proxy_1")
    assert isinstance(source.snapshot(), str)  # LOADER himself may ask for none
    source.close()
    with pytest.raises(SourceError, match="may not act for that user") as error:
        tables(url, "STRANGER[KPS]", "Proxy_2")
    assert "GRANT CONNECT THROUGH" in str(error.value.hint)


def test_a_locked_account_is_asked_once(oracle: OracleServer) -> None:
    oracle.store.catalog.users["KPS"].locked = True
    with pytest.raises(SourceError, match="the account is locked") as error:
        tables(f"oracle://127.0.0.1:{oracle.port}/KPCPROD")
    assert not isinstance(error.value, SourceUnavailable)


@pytest.mark.parametrize("code", [12516, 12518, 12519, 12520, 12526, 12527, 12528])
def test_a_listener_that_has_no_place_now_may_have_one_later(code: int) -> None:
    with OracleServer("19c") as server:
        server.add_user("KPS", PASSWORD)
        server.faults.order(Fault(at="connect", action="refuse", code=code))
        with pytest.raises(SourceUnavailable, match=rf"ORA-{code}") as error:
            tables(f"oracle://127.0.0.1:{server.port}/KPCPROD")
        assert ("no session" in str(error.value)) == (code < 12526)
        assert "ended the session" not in str(error.value)


def test_what_kept_a_connect_from_being_made_is_told(oracle: OracleServer) -> None:
    with pytest.raises(SourceUnavailable, match=r"knows no such service \(DPY-6001\)"):
        tables(f"oracle://127.0.0.1:{oracle.port}/OTHER")
    with pytest.raises(SourceError, match=r"knows no such SID \(DPY-6003\)") as error:
        tables(f"oracle://127.0.0.1:{oracle.port}?sid=OTHER")
    assert not isinstance(error.value, SourceUnavailable)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(SourceUnavailable, match=r"no listener answers there \(DPY-6005\)"):
        tables(f"oracle://127.0.0.1:{port}/KPCPROD")


def test_a_host_that_nobody_knows_and_parts_that_do_not_fit() -> None:
    with pytest.raises(SourceUnavailable, match=r"cannot be reached|DPY-6005"):
        tables("oracle://nowhere.invalid/KPCPROD")
    for url, words in (
        ("oracle://h/s?sdu=many", "value of `sdu`"),
        ("oracle://h/s?statement_minutes=0", "value of `statement_minutes`"),
        ("oracle://h/s?snapshot=maybe", "`snapshot` is"),
        ("oracle://(DESCRIPTION=(ADDRESS=x)", "the description has no end"),
        ("oracle://(DESCRIPTION", "the description has no end"),
        ("oracle://(DESCRIPTION=(x)) y", "something follows"),
        ("oracle://h/s?external=true", "takes `protocol=tcps`"),
    ):
        with pytest.raises(SourceError, match=words):
            tables(url)


PLAN = """
version: 1
project: p
source: {{url: "{url}"{more}}}
target: {{url: "twin:./org.duckdb"}}
tables:
  - {{table: A, object: A__c, key: ID, external_id: Id__c, fields: {{ID: Id__c}}}}
"""


@pytest.mark.parametrize(
    ("url", "more", "missing"),
    [
        ("oracle://db/x", "", ["user", "password"]),
        ("oracle://db/x", ', user: "KPS"', ["password"]),
        ("oracle://u:${P}@db/x", "", []),
        ("oracle://db/x?protocol=tcps&wallet_location=w&external=true", "", []),
        ("oracle://(DESCRIPTION=(ADDRESS=(PROTOCOL=TCP)(HOST=h)(PORT=1521)))", "", ["user", "password"]),
    ],
)
def test_a_plan_without_a_sign_in_is_a_fault_of_the_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str, more: str, missing: list[str]
) -> None:
    monkeypatch.setenv("P", "word")
    file = tmp_path / "forcelift.yaml"
    file.write_text(PLAN.format(url=url, more=more))
    if not missing:
        assert load_plan(file).plan.source is not None
        return
    with pytest.raises(PlanError) as error:
        load_plan(file)
    assert int(error.value.exit_code) == 2
    assert [f"an Oracle source needs a {name}" for name in missing] == [one.message for one in error.value.problems]
