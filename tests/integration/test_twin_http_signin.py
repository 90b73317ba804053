"""Sign-in to the twin over HTTP: flows, their errors, sessions, identity."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from pydantic import SecretStr, ValidationError
from tests.integration.twin_http_fixtures import BASE, Client, make_schema

from forcelift.twin.auth import JWT_BEARER, ConnectedApp, sign_identity
from forcelift.twin.clock import ManualClock
from forcelift.twin.errors import SchemaError
from forcelift.twin.http_apps import load_connected_apps
from forcelift.twin.org import TwinOrg
from forcelift.twin.server import TwinServer

TOKEN = "/services/oauth2/token"
START = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)


def pem_pair() -> tuple[str, str]:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    return private, public


@pytest.fixture(scope="module")
def keys() -> tuple[str, str]:
    return pem_pair()


def make_apps(public: str) -> list[ConnectedApp]:
    return [
        ConnectedApp(
            client_id="key-jwt",
            client_secret=SecretStr("hush"),
            certificate=public,
            users=("etl@kpc.example",),
            run_as="etl@kpc.example",
        ),
        ConnectedApp(
            client_id="key-password",
            client_secret=SecretStr("hush2"),
            flows=("password",),
            passwords={"etl@kpc.example": SecretStr("pass1")},
        ),
        ConnectedApp(client_id="key-bare", client_secret=SecretStr("hush3")),
    ]


@pytest.fixture(scope="module")
def clock() -> ManualClock:
    """Stands still: tests that move time make an org of their own."""
    return ManualClock(START)


@pytest.fixture(scope="module")
def server(keys: tuple[str, str], clock: ManualClock) -> Iterator[TwinServer]:
    org = TwinOrg.open(None, schema=make_schema(), clock=clock)
    with TwinServer(org, apps=make_apps(keys[1])) as running:
        yield running
    assert running.internal_errors == []
    org.close()


@pytest.fixture
def client(server: TwinServer) -> Iterator[Client]:
    with Client(server, server.app.sign_in.open_session("etl@kpc.example")) as made:
        yield made


def claims(clock: ManualClock, **changes: Any) -> dict[str, Any]:
    base = {
        "iss": "key-jwt",
        "sub": "etl@kpc.example",
        "aud": "https://login.salesforce.com",
        "exp": int(clock.now().timestamp()) + 180,
    }
    return {**base, **changes}


def assertion(private: str, document: dict[str, Any]) -> dict[str, str]:
    # Not `jwt.encode`: it refuses to write some of the documents that a client could send.
    signed = jwt.PyJWS().encode(json.dumps(document).encode(), private, algorithm="RS256")
    return {"grant_type": JWT_BEARER, "assertion": signed}


def test_jwt_signs_in_and_the_token_works(client: Client, keys: tuple[str, str], clock: ManualClock) -> None:
    answer = client.post(TOKEN, data=assertion(keys[0], claims(clock)), headers={"Authorization": ""})
    assert answer.status_code == 200
    document = answer.json()
    assert document.keys() == {"access_token", "scope", "instance_url", "id", "token_type"}
    org15 = client.server.org.org_id[:15]
    assert document["access_token"].startswith(f"{org15}!")
    assert document["instance_url"] == client.server.url
    with Client(client.server, document["access_token"]) as other:
        assert other.get(BASE).status_code == 200


@pytest.mark.parametrize(
    "end",
    [f"{START.timestamp() + 180.5:.0f}", int(START.timestamp() * 1000) + 300, int(START.timestamp())],
    ids=["text", "milliseconds", "now"],
)
def test_jwt_ends_as_known_clients_write_them(
    client: Client, keys: tuple[str, str], clock: ManualClock, end: str | int
) -> None:
    """simple-salesforce writes text, the Salesforce CLI milliseconds, CumulusCI now; real orgs sign all of them in."""
    document = claims(clock, exp=end)
    answer = client.post(TOKEN, data=assertion(keys[0], document), headers={"Authorization": ""})
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize(
    ("changes", "error", "description"),
    [
        ({"aud": "https://test.salesforce.com"}, "invalid_grant", "audience is invalid"),
        ({"aud": None}, "invalid_grant", "audience is invalid"),
        ({"exp": int(START.timestamp()) - 60}, "invalid_grant", "assertion expired"),
        ({"exp": int(START.timestamp()) + 3600}, "invalid_grant", "invalid assertion"),
        ({"exp": int(START.timestamp()) + 241}, "invalid_grant", "invalid assertion"),
        ({"exp": 99_999_999_999}, "invalid_grant", "invalid assertion"),
        ({"exp": "soon"}, "invalid_grant", "invalid assertion"),
        ({"exp": True}, "invalid_grant", "invalid assertion"),
        ({"exp": None}, "invalid_grant", "invalid assertion"),
        ({"exp": float("nan")}, "invalid_grant", "invalid assertion"),
        ({"exp": float("inf")}, "invalid_grant", "invalid assertion"),
        ({"exp": 10**400}, "invalid_grant", "invalid assertion"),
        ({"exp": str(int(START.timestamp()) - 3600)}, "invalid_grant", "assertion expired"),
        ({"iss": ["key-jwt"]}, "invalid_client_id", "client identifier invalid"),
        ({"iss": "who"}, "invalid_client_id", "client identifier invalid"),
        ({"sub": "nobody@kpc.example"}, "invalid_grant", "authentication failure"),
        ({"sub": "gone@kpc.example"}, "invalid_grant", "authentication failure"),
        ({"sub": "other@kpc.example"}, "invalid_grant", "user hasn't approved this consumer"),
        ({"iss": "key-password"}, "unsupported_grant_type", "grant type not supported"),
        ({"iss": "key-bare"}, "invalid_grant", "invalid assertion"),
    ],
)
def test_jwt_refusals(
    client: Client, keys: tuple[str, str], clock: ManualClock, changes: dict[str, Any], error: str, description: str
) -> None:
    answer = client.post(TOKEN, data=assertion(keys[0], claims(clock, **changes)))
    assert answer.status_code == 400
    assert answer.json() == {"error": error, "error_description": description}


def test_a_forged_jwt_is_refused(client: Client, keys: tuple[str, str], clock: ManualClock) -> None:
    other_private, _ = pem_pair()
    forged = assertion(other_private, claims(clock))
    unsigned = {"grant_type": JWT_BEARER, "assertion": jwt.encode(claims(clock), "", algorithm="none")}
    secret = "x" * 40
    symmetric = {"grant_type": JWT_BEARER, "assertion": jwt.encode(claims(clock), secret, algorithm="HS256")}
    for form in (
        forged,
        unsigned,
        symmetric,
        {"grant_type": JWT_BEARER, "assertion": "a.b.c"},
        {"grant_type": JWT_BEARER},
    ):
        answer = client.post(TOKEN, data=form)
        assert (answer.status_code, answer.json()["error_description"]) == (400, "invalid assertion")


def test_client_credentials_by_form_and_by_basic(client: Client) -> None:
    form = {"grant_type": "client_credentials", "client_id": "key-jwt", "client_secret": "hush"}
    document = client.post(TOKEN, data=form).json()
    assert document["signature"] == sign_identity("hush", document["id"], document["issued_at"])
    basic = base64.b64encode(b"key-jwt:hush").decode()
    answer = client.post(TOKEN, data={"grant_type": "client_credentials"}, headers={"Authorization": f"Basic {basic}"})
    assert answer.status_code == 200
    with Client(client.server, answer.json()["access_token"]) as other:
        info = other.get("/services/oauth2/userinfo").json()
    assert info["preferred_username"] == "etl@kpc.example"
    assert info["organization_id"] == client.server.org.org_id


@pytest.mark.parametrize(
    ("form", "error", "description"),
    [
        ({"client_id": "key-jwt", "client_secret": "no"}, "invalid_client", "invalid client credentials"),
        ({"client_id": "no", "client_secret": "hush"}, "invalid_client_id", "client identifier invalid"),
        ({"client_id": "key-bare", "client_secret": "hush3"}, "invalid_grant", "no client credentials user enabled"),
        ({}, "invalid_client_id", "client identifier invalid"),
    ],
)
def test_client_credentials_refusals(client: Client, form: dict[str, str], error: str, description: str) -> None:
    answer = client.post(TOKEN, data={"grant_type": "client_credentials", **form})
    assert (answer.status_code, answer.json()) == (400, {"error": error, "error_description": description})


def test_grant_types_that_do_not_exist(client: Client) -> None:
    answer = client.post(TOKEN, data={"grant_type": "magic"})
    assert answer.json() == {"error": "unsupported_grant_type", "error_description": "grant type not supported"}
    assert client.post(TOKEN).status_code == 400
    assert client.get(TOKEN).status_code == 405


def test_the_password_flow_is_off_unless_switched_on(client: Client) -> None:
    form = {"grant_type": "password", "username": "etl@kpc.example", "password": "pass1"}
    off = client.post(TOKEN, data={**form, "client_id": "key-jwt", "client_secret": "hush"})
    assert off.json()["error"] == "unsupported_grant_type"
    on = client.post(TOKEN, data={**form, "client_id": "key-password", "client_secret": "hush2"})
    assert on.status_code == 200
    wrong = client.post(TOKEN, data={**form, "password": "x", "client_id": "key-password", "client_secret": "hush2"})
    assert wrong.json() == {"error": "invalid_grant", "error_description": "authentication failure"}


def test_refresh_token_until_it_is_revoked(client: Client) -> None:
    refresh = client.server.app.sign_in.issue_refresh_token("key-jwt", "etl@kpc.example")
    form = {"grant_type": "refresh_token", "refresh_token": refresh, "client_id": "key-jwt", "client_secret": "hush"}
    assert client.post(TOKEN, data=form).status_code == 200
    wrong_app = {**form, "client_id": "key-bare", "client_secret": "hush3"}
    assert client.post(TOKEN, data=wrong_app).json()["error_description"] == "expired access/refresh token"
    assert client.post("/services/oauth2/revoke", data={"token": refresh}).status_code == 200
    answer = client.post(TOKEN, data=form)
    assert answer.json() == {"error": "invalid_grant", "error_description": "expired access/refresh token"}


def test_a_session_ends_when_it_is_revoked(client: Client) -> None:
    assert client.get(BASE).status_code == 200
    token = client.headers["Authorization"].removeprefix("Bearer ")
    answer = client.post("/services/oauth2/revoke", data={"token": token})
    assert (answer.status_code, answer.content) == (200, b"")
    refused = client.get(BASE)
    assert refused.status_code == 401
    assert refused.json() == [{"message": "Session expired or invalid", "errorCode": "INVALID_SESSION_ID"}]
    assert client.post("/services/oauth2/revoke", data={"token": "x"}).status_code == 400


def test_use_extends_a_session_and_idleness_ends_it() -> None:
    clock = ManualClock(START)
    org = TwinOrg.open(None, schema=make_schema(), clock=clock)
    with TwinServer(org) as server, Client(server) as client:
        for _ in range(4):
            clock.advance(timedelta(minutes=119))
            assert client.get(BASE).status_code == 200
        clock.advance(timedelta(minutes=120))
        assert client.get(BASE).status_code == 401
    org.close()


@pytest.mark.parametrize("header", [None, "Bearer", "Bearer nonsense", "Basic YTpi", "00Dx!y"])
def test_calls_without_a_session(client: Client, header: str | None) -> None:
    headers = {} if header is None else {"Authorization": header}
    bare = httpx.Client(base_url=client.server.url, headers=headers)
    with bare:
        answer = bare.get(f"{BASE}/limits")
        assert (answer.status_code, answer.json()[0]["errorCode"]) == (401, "INVALID_SESSION_ID")
        info = bare.get("/services/oauth2/userinfo")
        assert (info.status_code, info.text) == (403, "Missing_OAuth_Token" if header is None else "Bad_OAuth_Token")
        assert bare.get("/services/data").status_code == 200


def test_identity_url_of_the_token_answer(client: Client) -> None:
    url = client.get(BASE).json()["identity"]
    document = client.get(url).json()
    assert document["username"] == "etl@kpc.example"
    assert document["id"] == url
    assert client.get(f"/id/00D000000000000AAA/{document['user_id']}").status_code == 403


def test_a_restarted_twin_still_knows_a_session_and_its_app(tmp_path: Path) -> None:
    """Goal: a client that was connected before a crash goes on. Method: serve, stop, serve the same file again."""
    path, clock = tmp_path / "org.duckdb", ManualClock(START)
    org = TwinOrg.open(path, schema=make_schema(), clock=clock)
    with TwinServer(org) as first:
        token, app = first.access_token, first.app.made_app_json()
    org.close()
    clock.advance(timedelta(minutes=30))
    org = TwinOrg.open(path, schema=make_schema(), clock=clock)
    with TwinServer(org) as second:
        assert second.app.made_app_json() == app
        with Client(second, token) as client:
            assert client.get(BASE).status_code == 200
            assert app is not None
            form = {"grant_type": "client_credentials", **app}
            assert client.post(TOKEN, data=form).status_code == 200
    org.close()
    assert token.encode() not in path.read_bytes()


def test_connected_apps_from_a_schema_file(tmp_path: Path, keys: tuple[str, str]) -> None:
    (tmp_path / "app.pem").write_text(keys[1])
    file = tmp_path / "org.yaml"
    file.write_text(
        "objects: {}\nconnected_apps:\n  - {client_id: one, client_secret: s, certificate: app.pem, run_as: a@b.c}\n"
    )
    (app,) = load_connected_apps(file)
    assert app.public_key() is not None
    assert "secret" not in repr(app).replace("client_secret", "")
    file.write_text("connected_apps:\n  - {client_id: one, clientsecret: verysecret}\n  - {client_id: one}\n")
    with pytest.raises(SchemaError) as caught:
        load_connected_apps(file)
    assert "clientsecret" in str(caught.value)
    assert "verysecret" not in str(caught.value)


def test_a_certificate_must_hold_an_rsa_key() -> None:
    with pytest.raises(ValidationError):
        ConnectedApp(client_id="x", certificate="-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n")
