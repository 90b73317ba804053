"""Signing in, staying signed in, and never giving a secret to the wrong host."""

from __future__ import annotations

import datetime
import ipaddress
import json
import random
import ssl
import stat
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import httpx
import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from tests.salesforce_server import (
    ORG_ID,
    ROOT,
    USER_ID,
    OrgServer,
    Reply,
    TestClock,
    error,
    expired,
    job_json,
    running,
)

from forcelift.errors import OrgUnavailable, SignInFailed, TargetError, UsageError
from forcelift.protocols.org import JobRequest
from forcelift.salesforce import AuthSettings, SalesforceOrg, connect
from forcelift.salesforce.auth import Token
from forcelift.salesforce.hosts import base_url, is_sandbox_host, pinned_instance

TOKEN_PATH = "/services/oauth2/token"
JOB = "750000000000001AAA"
KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
PEM = KEY.private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
).decode()
JWT_AUTH = AuthSettings(flow="jwt", client_id="3MVG9", username="etl@example.com", private_key=PEM)
SECRET_AUTH = AuthSettings(flow="client_credentials", client_id="3MVG9", client_secret="hush")


@pytest.fixture
def server() -> Iterator[OrgServer]:
    with running() as started:
        yield started


@pytest.fixture
def clock() -> TestClock:
    return TestClock()


def open_org(server: OrgServer, auth: AuthSettings, clock: TestClock, **more: Any) -> SalesforceOrg:
    return connect(server.url, auth=auth, clock=clock, rng=random.Random(1), **more)


def grant(server: OrgServer, *tokens: str) -> None:
    """Let the token endpoint give these tokens, one after the other."""
    base = {
        "instance_url": server.url,
        "id": f"https://login.salesforce.com/id/{ORG_ID}/{USER_ID}",
        "token_type": "Bearer",
    }
    server.on("POST", TOKEN_PATH, *[Reply(body={**base, "access_token": token}) for token in tokens])


def only_for(good: str, reply: Reply) -> Any:
    """Answers `reply` to one token, and that the session has expired to all others."""
    return lambda asked: reply if asked.token == good else expired()


def form_of(server: OrgServer) -> dict[str, str]:
    return dict(parse_qsl(server.of("POST", TOKEN_PATH)[-1].body.decode()))


def test_jwt_signs_what_salesforce_asks_for(server: OrgServer, clock: TestClock) -> None:
    grant(server, "t1")
    org = open_org(server, JWT_AUTH, clock)
    form = form_of(server)
    assert form["grant_type"] == "urn:ietf:params:oauth:grant-type:jwt-bearer"
    claims = jwt.decode(
        form["assertion"], KEY.public_key(), algorithms=["RS256"], options={"verify_exp": False, "verify_aud": False}
    )
    assert claims == {
        "iss": "3MVG9",
        "sub": "etl@example.com",
        "aud": "https://login.salesforce.com",
        "exp": int(clock.now().timestamp()) + 180,
    }
    assert org.user_name == "etl@example.com"
    org.close()


def test_the_audience_can_be_given(server: OrgServer, clock: TestClock) -> None:
    grant(server, "t1")
    auth = AuthSettings(
        flow="jwt", client_id="3MVG9", username="u", private_key=PEM, audience="https://test.salesforce.com"
    )
    open_org(server, auth, clock).close()
    claims = jwt.decode(form_of(server)["assertion"], options={"verify_signature": False})
    assert claims["aud"] == "https://test.salesforce.com"


@pytest.mark.parametrize(
    ("host", "sandbox"),
    [
        ("test.salesforce.com", True),
        ("kpc--uat.sandbox.my.salesforce.com", True),
        ("kpc--uat.my.salesforce.com", True),
        ("abc-123.scratch.my.salesforce.com", True),
        ("login.salesforce.com", False),
        ("kpc.my.salesforce.com", False),
        ("kpc-dev-ed.develop.my.salesforce.com", False),
        ("127.0.0.1", False),
    ],
)
def test_sandboxes_are_told_by_their_host(host: str, sandbox: bool) -> None:
    assert is_sandbox_host(host) is sandbox


def test_client_credentials(server: OrgServer, clock: TestClock) -> None:
    grant(server, "t1")
    open_org(server, SECRET_AUTH, clock).close()
    assert form_of(server) == {"grant_type": "client_credentials", "client_id": "3MVG9", "client_secret": "hush"}
    assert "authorization" not in server.of("POST", TOKEN_PATH)[0].headers


REFUSALS = [
    ("invalid_grant", "user hasn't approved this consumer", "has not been allowed to use this connected app"),
    ("invalid_app_access", "user is not admin approved to access this app", "administrator approved"),
    ("invalid_client_id", "client identifier invalid", "no app with this consumer key"),
    ("invalid_client", "invalid client credentials", "secret is wrong"),
    ("invalid_grant", "expired access/refresh token", "expired or was revoked"),
    ("invalid_grant", "authentication failure", "does not exist in this org"),
    ("invalid_grant", "audience is invalid", "audience of the signed request"),
    ("invalid_grant", "invalid assertion", "signature does not fit"),
    ("invalid_grant", "assertion expired", "too old when it arrived"),
    ("invalid_grant", "request not supported on this domain", "only at the org's own address"),
    ("invalid_grant", "no client credentials user enabled", "no user to run as"),
    ("unsupported_grant_type", "grant type not supported", "does not offer this flow"),
    ("invalid_grant", "login rate exceeded", "3,600 times"),
    ("invalid_grant", "something new", "a reason that only its text tells"),
]


@pytest.mark.parametrize(("code", "text", "cause"), REFUSALS)
def test_a_refused_sign_in_says_why(server: OrgServer, clock: TestClock, code: str, text: str, cause: str) -> None:
    server.on("POST", TOKEN_PATH, Reply(400, {"error": code, "error_description": text}))
    with pytest.raises(SignInFailed) as caught:
        open_org(server, SECRET_AUTH, clock)
    assert cause in caught.value.message
    assert f"{code}: {text}" in caught.value.message
    assert caught.value.hint
    assert "hush" not in repr(caught.value) + str(caught.value.hint)
    assert len(server.of("POST", TOKEN_PATH)) == 1


def test_a_busy_token_endpoint_is_asked_again(server: OrgServer, clock: TestClock) -> None:
    ok = {"instance_url": server.url, "access_token": "t1"}
    server.on("POST", TOKEN_PATH, Reply(503), Reply(hang_up=True), Reply(body=ok))
    open_org(server, SECRET_AUTH, clock).close()
    assert len(clock.slept) == 2
    server.on("POST", TOKEN_PATH, Reply(503))
    with pytest.raises(OrgUnavailable):
        open_org(server, SECRET_AUTH, clock)


def test_an_answer_that_is_no_token(server: OrgServer, clock: TestClock) -> None:
    server.on("POST", TOKEN_PATH, Reply(200, b"<html>welcome, here is a SECRETVALUE</html>"))
    with pytest.raises(SignInFailed) as caught:
        open_org(server, SECRET_AUTH, clock)
    assert "SECRETVALUE" not in f"{caught.value} {caught.value.__cause__}"


@pytest.mark.parametrize("pem", ["no key", PEM[:300], "-----BEGIN PRIVATE KEY-----\nSECRET\n-----END PRIVATE KEY-----"])
def test_a_private_key_that_cannot_be_read(server: OrgServer, clock: TestClock, pem: str) -> None:
    auth = AuthSettings(flow="jwt", client_id="c", username="u", private_key=pem)
    with pytest.raises(SignInFailed, match="private key") as caught:
        open_org(server, auth, clock)
    assert pem[-20:] not in str(caught.value)
    assert caught.value.__cause__ is None


def test_what_a_flow_needs_is_asked_for_before_anything_is_sent(server: OrgServer, clock: TestClock) -> None:
    with pytest.raises(UsageError, match="`username`, `private_key`"):
        open_org(server, AuthSettings(flow="jwt", client_id="c"), clock)
    with pytest.raises(UsageError, match="magic"):
        open_org(server, AuthSettings(flow="magic"), clock)  # type: ignore[arg-type]  # what a caller may get wrong
    assert server.asked == []


def test_secrets_are_not_in_the_representation() -> None:
    auth = AuthSettings(flow="token", access_token="AAA", client_secret="BBB", private_key="CCC")
    token = Token(access_token="AAA", instance_url="https://x")
    assert not {"AAA", "BBB", "CCC"} & set(repr(auth).replace("'", " ").split())
    assert "AAA" not in repr(token)


def test_an_api_version_that_the_org_lacks(server: OrgServer, clock: TestClock) -> None:
    grant(server, "t1")
    with pytest.raises(TargetError, match=r"does not offer API version 99\.0; it offers 65\.0 to 66\.0"):
        open_org(server, SECRET_AUTH, clock, api_version="99.0")


# Twin or org


@pytest.mark.parametrize(("expect", "header"), [(False, {"X-Forcelift-Twin": "1"}), (True, {})])
def test_no_secret_reaches_the_wrong_kind_of_host(
    server: OrgServer, clock: TestClock, expect: bool, header: dict[str, str]
) -> None:
    server.on("GET", "/services/data", Reply(body=[{"version": "66.0"}], headers=header))
    grant(server, "t1")
    for auth in (AuthSettings(flow="token", access_token="real"), JWT_AUTH):
        with pytest.raises(TargetError, match="but the plan's target is"):
            open_org(server, auth, clock, expect_twin=expect)
    assert [(asked.path, asked.token) for asked in server.asked] == [("/services/data", None)] * 2


@pytest.mark.parametrize("expect", [True, None])
def test_a_twin_is_known_as_one(server: OrgServer, clock: TestClock, expect: bool | None) -> None:
    server.on("GET", "/services/data", Reply(body=[{"version": "66.0"}], headers={"X-Forcelift-Twin": "1"}))
    grant(server, "t1")
    org = open_org(server, SECRET_AUTH, clock, expect_twin=expect)
    assert org.is_twin
    org.close()


@pytest.mark.parametrize("answer", [Reply(200, b"<html>"), Reply(404, b""), Reply(200, {"hello": 1})])
def test_a_host_that_is_no_org_gets_no_credentials(server: OrgServer, clock: TestClock, answer: Reply) -> None:
    server.on("GET", "/services/data", answer)
    with pytest.raises(TargetError):
        open_org(server, SECRET_AUTH, clock)
    assert {asked.path for asked in server.asked} == {"/services/data"}


def test_an_instance_elsewhere_is_refused(server: OrgServer, clock: TestClock) -> None:
    server.on("POST", TOKEN_PATH, Reply(body={"access_token": "t1", "instance_url": "https://evil.my.salesforce.com"}))
    with pytest.raises(TargetError, match="names `evil"):
        open_org(server, SECRET_AUTH, clock)
    assert [asked.path for asked in server.asked] == ["/services/data", TOKEN_PATH]


def test_which_instances_are_taken() -> None:
    login = httpx.URL("https://login.salesforce.com")
    mine = httpx.URL("https://kpc.my.salesforce.com")
    assert pinned_instance(login, "https://kpc.my.salesforce.com/") == mine
    assert pinned_instance(mine, "https://KPC.my.salesforce.com") == mine
    refused = [
        (login, "https://salesforce.com.evil.example"),
        (login, "http://kpc.my.salesforce.com"),
        (login, "https://evilsalesforce.com"),
        (mine, "https://other.my.salesforce.com"),
        (mine, "https://kpc.my.salesforce.com:8443"),
        (mine, ""),
    ]
    for url, instance in refused:
        with pytest.raises(TargetError):
            pinned_instance(url, instance)


class Wire:
    """Salesforce's hosts, without a network: login signs in and names the org's own host."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, str | None]] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append((request.url.host, request.url.path, request.headers.get("Authorization")))
        answers: dict[str, Any] = {
            TOKEN_PATH: {"access_token": "t1", "instance_url": "https://kpc.my.salesforce.com"},
            "/services/data": [{"version": "66.0"}],
            "/services/oauth2/userinfo": {"user_id": USER_ID, "organization_id": ORG_ID, "preferred_username": "u"},
        }
        return httpx.Response(200, json=answers[request.url.path])


def test_a_general_sign_in_host_names_the_org(clock: TestClock) -> None:
    wire = Wire()
    org = connect("https://login.salesforce.com", auth=JWT_AUTH, clock=clock, wire=httpx.MockTransport(wire))
    assert org.url == "https://kpc.my.salesforce.com"
    assert wire.asked == [
        ("login.salesforce.com", TOKEN_PATH, None),
        ("kpc.my.salesforce.com", "/services/data", None),
        ("kpc.my.salesforce.com", "/services/oauth2/userinfo", "Bearer t1"),
    ]
    wire.asked.clear()
    with pytest.raises(TargetError, match="no twin"):
        connect(
            "https://test.salesforce.com",
            auth=JWT_AUTH,
            clock=clock,
            expect_twin=True,
            wire=httpx.MockTransport(wire),
        )
    assert wire.asked == []


@pytest.mark.parametrize(
    "url",
    [
        "http://kpc.my.salesforce.com",
        "http://127.0.0.1.evil.example",
        "http://localhost.evil.example",
        "ftp://kpc.my.salesforce.com",
        "kpc.my.salesforce.com",
        "https://user:pw@kpc.my.salesforce.com",
        "https://",
        "",
        "https://[::1",
    ],
)
def test_urls_that_are_not_taken(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        base_url(url)
    assert "pw" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["http://localhost:1", "http://127.0.0.9:1", "http://[::1]:1", "https://x.my.salesforce.com/a?b=c"]
)
def test_urls_that_are_taken_lose_their_path(url: str) -> None:
    assert base_url(url).path == "/"
    assert base_url(url).query == b""


def test_nobody_there(clock: TestClock) -> None:
    with running() as server:
        url = server.url
    with pytest.raises(OrgUnavailable):
        connect(url, auth=SECRET_AUTH, clock=clock, rng=random.Random(1))


def test_a_proxy_is_not_used_for_this_machine(
    server: OrgServer, clock: TestClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    grant(server, "t1")
    open_org(server, SECRET_AUTH, clock).close()


# Sessions that expire


def test_an_expired_session_is_renewed_and_the_call_sent_again(server: OrgServer, clock: TestClock) -> None:
    grant(server, "t1", "t2")
    org = open_org(server, SECRET_AUTH, clock)
    server.on("POST", f"{ROOT}/jobs/ingest", only_for("t2", Reply(body=job_json())))
    assert org.create_job(JobRequest(object="Account", operation="insert")).id == JOB
    assert [asked.token for asked in server.of("POST", f"{ROOT}/jobs/ingest")] == ["t1", "t2"]
    org.close()


def test_an_upload_starts_from_the_beginning_after_a_renewal(server: OrgServer, clock: TestClock) -> None:
    grant(server, "t1", "t2")
    org = open_org(server, SECRET_AUTH, clock)
    path = f"{ROOT}/jobs/ingest/{JOB}/batches"
    server.on("PUT", path, only_for("t2", Reply(201)))
    org.upload(JOB, content=lambda: iter([b"Name\n", b"x\n"]), size=7)
    assert [asked.body for asked in server.of("PUT", path)] == [b"Name\nx\n"] * 2
    org.close()


def test_a_result_file_is_asked_for_again_after_a_renewal(server: OrgServer, clock: TestClock) -> None:
    from forcelift.protocols.org import ResultKind

    grant(server, "t1", "t2")
    org = open_org(server, SECRET_AUTH, clock)
    server.on("GET", f"{ROOT}/jobs/ingest/{JOB}/failedResults/", only_for("t2", Reply(body=b"a\n")))
    assert b"".join(org.results(JOB, ResultKind.FAILED)) == b"a\n"
    org.close()


def test_threads_share_one_renewal(server: OrgServer, clock: TestClock) -> None:
    threads = 8
    grant(server, "t1", "t2")
    org = open_org(server, SECRET_AUTH, clock)
    all_refused = threading.Barrier(threads)

    def answer(asked: Any) -> Reply:
        if asked.token == "t2":
            return Reply(body={})
        all_refused.wait(30)  # every thread meets the expired session before one of them gets its answer
        return expired()

    server.on("GET", f"{ROOT}/limits", answer)
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda _: org.limits(), range(threads)))
    assert len(server.of("POST", TOKEN_PATH)) == 2, "one sign-in at the start, one renewal"
    org.close()


def test_a_renewal_that_fails_fails_for_all_and_can_be_tried_again(server: OrgServer, clock: TestClock) -> None:
    grant(server, "t1")
    org = open_org(server, SECRET_AUTH, clock)
    server.on("GET", f"{ROOT}/limits", only_for("t2", Reply(body={})))
    server.on("POST", TOKEN_PATH, Reply(400, {"error": "invalid_client", "error_description": "x"}))
    with pytest.raises(SignInFailed):
        org.limits()
    grant(server, "t2")
    org.limits()
    org.close()


def test_a_second_401_is_final(server: OrgServer, clock: TestClock) -> None:
    grant(server, "t1")
    org = open_org(server, SECRET_AUTH, clock)
    server.on("GET", f"{ROOT}/limits", expired())
    with pytest.raises(SignInFailed):
        org.limits()
    assert len(server.of("GET", f"{ROOT}/limits")) == 2
    assert len(server.of("POST", TOKEN_PATH)) == 2
    org.close()


@pytest.mark.parametrize(
    "text", ["This session is not valid for use with the REST API", "Connected app is not attached to Agent"]
)
def test_401s_that_are_no_expiry_are_not_renewed(server: OrgServer, clock: TestClock, text: str) -> None:
    grant(server, "t1")
    org = open_org(server, SECRET_AUTH, clock)
    server.on("GET", f"{ROOT}/limits", error(401, "INVALID_SESSION_ID", text))
    with pytest.raises(SignInFailed, match=text):
        org.limits()
    assert len(server.of("POST", TOKEN_PATH)) == 1
    org.close()


def test_a_ready_token_cannot_be_renewed(server: OrgServer, clock: TestClock) -> None:
    org = open_org(server, AuthSettings(flow="token", access_token="t1"), clock)
    server.on("GET", f"{ROOT}/limits", expired())
    with pytest.raises(SignInFailed, match="cannot renew it") as caught:
        org.limits()
    assert "run --resume" in (caught.value.hint or "")
    assert len(server.of("GET", f"{ROOT}/limits")) == 1
    org.close()


# The `sf` command line


def fake_sf(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> Path:
    """Put a program `sf` on the PATH that logs its arguments; `script` prints its answer."""
    program = folder / "sf"
    program.write_text(f'#!/bin/sh\necho "$@" >> "{folder}/arguments"\n{script}\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return folder / "arguments"


def shown(server: OrgServer, token: str) -> str:
    answer = {"status": 0, "result": {"accessToken": token, "instanceUrl": server.url, "id": ORG_ID}}
    return f"echo '{json.dumps(answer)}'"


def test_sf_cli(server: OrgServer, clock: TestClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    token = "00D000000000001!AQcAQ.secret"
    arguments = fake_sf(tmp_path, monkeypatch, shown(server, token))
    org = open_org(server, AuthSettings(flow="sf_cli", alias="uat"), clock)
    assert server.of("GET", "/services/oauth2/userinfo")[0].token == token
    assert arguments.read_text() == "org display --target-org uat --json\n"
    server.on("GET", f"{ROOT}/limits", expired())
    with pytest.raises(SignInFailed, match="cannot renew it"):
        org.limits()
    org.close()


def test_sf_cli_that_hides_the_token(
    server: OrgServer, clock: TestClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = "00D000000000001!AQcAQ.secret"
    hidden = shown(server, "[REDACTED] Use sf org auth show-access-token to view")
    script = f'if [ "$2" = display ]; then {hidden}; else {shown(server, token)}; fi'
    arguments = fake_sf(tmp_path, monkeypatch, script)
    open_org(server, AuthSettings(flow="sf_cli", alias="uat"), clock).close()
    assert server.of("GET", "/services/oauth2/userinfo")[0].token == token
    assert arguments.read_text().splitlines()[1] == "org auth show-access-token --target-org uat --json"


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("""echo '{"name":"NamedOrgNotFoundError","message":"x","status":1}'; exit 1""", "NamedOrgNotFoundError"),
        ("echo oops; exit 3", "exit code 3"),
        ("""echo '{"status":0,"result":{}}'""", "printed no access token"),
        ("""echo '{"status":0,"result":{"accessToken":"[REDACTED]"}}'""", "shows no access token"),
    ],
)
def test_sf_cli_that_fails(
    server: OrgServer, clock: TestClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, message: str
) -> None:
    fake_sf(tmp_path, monkeypatch, script)
    with pytest.raises(SignInFailed, match=message):
        open_org(server, AuthSettings(flow="sf_cli", alias="uat"), clock)


def test_sf_cli_that_is_not_there(
    server: OrgServer, clock: TestClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SignInFailed, match="not on the PATH"):
        open_org(server, AuthSettings(flow="sf_cli", alias="uat"), clock)


# TLS


def self_signed(folder: Path) -> Path:
    """A certificate for 127.0.0.1 with its key in one PEM file."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "twin")])
    start = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(KEY.public_key())
        .serial_number(1)
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(days=36500))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(KEY, hashes.SHA256())
    )
    file = folder / "server.pem"
    file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM) + PEM.encode())
    return file


def test_https_wants_a_trusted_certificate(clock: TestClock, tmp_path: Path) -> None:
    file = self_signed(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    with running() as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        url = server.url.replace("http:", "https:")
        server.on("POST", TOKEN_PATH, Reply(body={"instance_url": url, "access_token": "t1"}))
        with pytest.raises(TargetError, match="is not trusted") as caught:
            connect(url, auth=SECRET_AUTH, clock=clock, rng=random.Random(1))
        assert not isinstance(caught.value, OrgUnavailable), "waiting would not help"
        assert "ca_file" in (caught.value.hint or "")
        assert server.asked == []
        org = connect(url, auth=SECRET_AUTH, clock=clock, rng=random.Random(1), ca_file=str(file))
        assert org.url == url
        org.close()


def test_a_ca_file_that_cannot_be_read(server: OrgServer, clock: TestClock, tmp_path: Path) -> None:
    empty = tmp_path / "ca.pem"
    empty.write_text("nothing")
    for file in (empty, tmp_path / "missing.pem"):
        with pytest.raises(UsageError, match="ca_file"):
            open_org(server, SECRET_AUTH, clock, ca_file=str(file))
