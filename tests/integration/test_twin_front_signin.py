"""Sign-in beyond the flows of OAuth: SOAP login, password policy, approval by an administrator; HTTPS."""

from __future__ import annotations

import re
import ssl
import stat
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr
from tests.integration.twin_http_fixtures import BASE, Client, make_schema

from forcelift.twin.auth import JWT_BEARER, ConnectedApp, PasswordPolicy
from forcelift.twin.errors import SchemaError
from forcelift.twin.http_apps import load_password_policy
from forcelift.twin.org import TwinOrg
from forcelift.twin.server import TwinServer
from forcelift.twin.tls import LIFETIME, RENEW_BEFORE, Certificate, CertificateUnusable, own_certificate

USER = "etl@kpc.example"
TOKEN = "/services/oauth2/token"
LOGIN = (
    '<?xml version="1.0" encoding="utf-8"?><env:Envelope xmlns:env="http://schemas.xmlsoap.org/soap/envelope/">'
    '<env:Body><n1:login xmlns:n1="urn:partner.soap.sforce.com"><n1:username>{}</n1:username>'
    "<n1:password>{}</n1:password></n1:login></env:Body></env:Envelope>"
)
POLICY = PasswordPolicy(soap_login=True, passwords={USER: SecretStr("pa&ss<1>TOKEN")})
SOAP_HEADERS = {"Content-Type": "text/xml", "SOAPAction": "login"}


def soap_login(client: httpx.Client, user: str, password: str, path: str = "u/58.0") -> httpx.Response:
    return client.post(f"/services/Soap/{path}", content=LOGIN.format(user, password), headers=SOAP_HEADERS)


def tag(text: str, name: str) -> str:
    found = re.search(f"<(?:\\w+:)?{name}[^>]*>([^<]*)<", text)
    assert found is not None, f"no `{name}` in {text}"
    return found.group(1)


@pytest.fixture(scope="module")
def server() -> Iterator[TwinServer]:
    with TwinOrg.open(schema=make_schema()) as org:
        with TwinServer(org, policy=POLICY) as running:
            yield running
        assert running.internal_errors == []


@pytest.fixture
def client(server: TwinServer) -> Iterator[Client]:
    with Client(server) as made:
        yield made


@pytest.mark.parametrize("path", ["u/58.0", "c/58.0", "u/31.0/00D000000000001"])
def test_soap_login_gives_a_session_that_rest_takes(client: Client, path: str) -> None:
    answer = soap_login(client, USER.upper(), "pa&amp;ss&lt;1&gt;TOKEN", path)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/xml")
    token, url = tag(answer.text, "sessionId"), tag(answer.text, "serverUrl")
    assert url.startswith(f"{client.server.url}/services/Soap/{path[0]}/")
    assert tag(answer.text, "sandbox") == "false"
    assert tag(answer.text, "passwordExpired") == "false"
    assert tag(answer.text, "userName") == USER
    assert tag(answer.text, "metadataServerUrl").startswith(f"{client.server.url}/services/Soap/m/")
    assert client.get(f"{BASE}/limits", headers={"Authorization": f"Bearer {token}"}).status_code == 200


@pytest.mark.parametrize(("user", "password"), [(USER, "wrong"), ("nobody@kpc.example", "x"), ("", "")])
def test_soap_login_with_a_wrong_password_is_a_fault(client: Client, user: str, password: str) -> None:
    answer = soap_login(client, user, password)
    assert answer.status_code == 500
    assert tag(answer.text, "faultcode").endswith("INVALID_LOGIN")
    assert tag(answer.text, "exceptionCode") == "INVALID_LOGIN"
    text = "Invalid username, password, security token; or user locked out."
    assert tag(answer.text, "exceptionMessage") == text
    assert "<sf:exceptionCode>INVALID_LOGIN</sf:exceptionCode>" in answer.text


@pytest.mark.parametrize(
    ("path", "code"),
    [("u/21.0", "UNSUPPORTED_API_VERSION"), ("u/99.0", "UNSUPPORTED_API_VERSION"), ("u/65.0", "INVALID_OPERATION")],
)
def test_soap_login_exists_up_to_version_64_only(client: Client, path: str, code: str) -> None:
    answer = soap_login(client, USER, "pa&amp;ss&lt;1&gt;TOKEN", path)
    assert answer.status_code == 500
    assert tag(answer.text, "exceptionCode") == code


def test_soap_login_is_off_in_a_new_org() -> None:
    with TwinOrg.open(schema=make_schema()) as org, TwinServer(org) as server, Client(server) as client:
        answer = soap_login(client, USER, "anything")
        assert answer.status_code == 500
        assert tag(answer.text, "exceptionCode") == "INVALID_OPERATION"
        assert "disabled by default" in answer.text
        form = {"grant_type": "password", "username": USER, "password": "anything"}
        app = server.app.made_app_json()
        assert app is not None
        assert client.post(TOKEN, data={**form, **app}).json()["error"] == "unsupported_grant_type"


def test_the_policy_switches_the_password_flow_of_the_made_app_on(client: Client, server: TwinServer) -> None:
    app = server.app.made_app_json()
    assert app is not None
    form = {"grant_type": "password", "username": USER, **app}
    good = client.post(TOKEN, data={**form, "password": "pa&ss<1>TOKEN"})
    assert good.status_code == 200, good.text
    assert good.json()["access_token"].startswith(server.org.org_id[:15] + "!")
    bad = client.post(TOKEN, data={**form, "password": "pa&ss<1>"})
    assert bad.json() == {"error": "invalid_grant", "error_description": "authentication failure"}


ENTITIES = '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]><x>&b;</x>'
OUTSIDE = '<!DOCTYPE x [<!ENTITY f SYSTEM "file:///etc/hostname">]><x>&f;</x>'


@pytest.mark.parametrize(
    "body",
    [b"", b"\xff\xfe", b"<", b"<a/>", ENTITIES.encode(), OUTSIDE.encode(), b"<a>" * 5000 + b"</a>" * 5000,
     b'<?xml version="1.0" encoding="nonesuch"?><a/>', b'<?xml version="1.0" encoding="utf-32"?><a/>'],
)  # fmt: skip
def test_what_is_no_envelope_gets_a_client_fault(client: Client, body: bytes) -> None:
    answer = client.post("/services/Soap/u/58.0", content=body, headers=SOAP_HEADERS)
    assert answer.status_code == 500
    assert tag(answer.text, "faultcode") == "soapenv:Client"
    assert "aaaa" not in answer.text


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    body=st.one_of(st.binary(max_size=300), st.text(max_size=100).map(lambda text: LOGIN.format(text, text).encode())),
    path=st.sampled_from(["/services/Soap/u/58.0", "/services/Soap/c/66.0", TOKEN, "/services/oauth2/revoke"]),
)
def test_random_bytes_at_the_door_never_are_a_fault_of_the_twin(client: Client, body: bytes, path: str) -> None:
    kind = "text/xml" if "Soap" in path else "application/x-www-form-urlencoded"
    answer = client.post(path, content=body, headers={"Content-Type": kind})
    assert answer.status_code in (200, 400, 401, 500)
    if answer.status_code == 500:
        assert "UNKNOWN_EXCEPTION" not in answer.text
        assert tag(answer.text, "faultcode")
    assert client.server.internal_errors == []


def test_client_credentials_are_refused_at_the_hosts_that_all_orgs_share(client: Client, server: TwinServer) -> None:
    app = server.app.made_app_json()
    assert app is not None
    form = {"grant_type": "client_credentials", **app}
    answer = client.post(TOKEN, data=form, headers={"Host": "login.salesforce.com"})
    assert answer.json() == {"error": "invalid_grant", "error_description": "request not supported on this domain"}
    assert client.post(TOKEN, data=form).status_code == 200


def test_an_app_for_approved_users_only_says_so() -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    app = ConnectedApp(client_id="key", certificate=public, users=(USER,), admin_approved=True)
    with TwinOrg.open(schema=make_schema()) as org, TwinServer(org, apps=[app]) as server, Client(server) as client:

        def sign_in(user: str) -> httpx.Response:
            expires = datetime.now(UTC) + timedelta(minutes=2)
            claims = {"iss": "key", "sub": user, "aud": "https://login.salesforce.com", "exp": expires}
            assertion = jwt.encode(claims, private, algorithm="RS256")
            return client.post(TOKEN, data={"grant_type": JWT_BEARER, "assertion": assertion})

        assert sign_in(USER).status_code == 200
        refused = sign_in("other@kpc.example")
        assert refused.status_code == 400
        assert refused.json() == {
            "error": "invalid_app_access",
            "error_description": "user is not admin approved to access this app",
        }


def test_the_policy_is_read_from_the_schema_file_and_never_repeated(tmp_path: Path) -> None:
    file = tmp_path / "org.yaml"
    file.write_text("sign_in: {soap_login: true, passwords: {a@b.c: hush}}\nobjects: {}\n")
    policy = load_password_policy(file)
    assert policy.soap_login
    assert policy.is_right("A@B.C", "hush")
    assert not policy.is_right("a@b.c", "Hush")
    assert "hush" not in repr(policy)
    file.write_text("objects: {}\n")
    assert load_password_policy(file) == PasswordPolicy()
    file.write_text("sign_in: {soap_login: hush, pass: hush}\nobjects: {}\n")
    with pytest.raises(SchemaError) as told:
        load_password_policy(file)
    assert "hush" not in str(told.value)


def test_https_serves_the_same_org_to_who_trusts_its_certificate(tmp_path: Path) -> None:
    pair = own_certificate(tmp_path / "tls")
    with TwinOrg.open(schema=make_schema()) as org, TwinServer(org, tls=pair) as server:
        assert server.url.startswith("https://127.0.0.1:")
        assert server.describe()["certificate"] == str(pair.cert_file)
        context = ssl.create_default_context(cafile=str(pair.cert_file))
        headers = {"Authorization": f"Bearer {server.access_token}"}
        for host in ("127.0.0.1", "localhost"):
            url = f"https://{host}:{server.port}{BASE}"
            with httpx.Client(verify=context, headers=headers) as client:
                assert client.get(f"{url}/limits").status_code == 200
                assert client.get(url).json()["identity"].startswith(f"https://{host}:{server.port}/id/00D")
        with httpx.Client() as stranger, pytest.raises(httpx.ConnectError, match="certificate"):
            stranger.get(server.url)


def test_the_key_is_the_owners_and_the_pair_lasts(tmp_path: Path) -> None:
    folder, now = tmp_path / "tls", datetime(2026, 5, 1, tzinfo=UTC)
    pair = own_certificate(folder, now=now)
    assert stat.S_IMODE(pair.key_file.stat().st_mode) == 0o600
    assert sorted(path.name for path in folder.iterdir()) == ["cert.pem", "key.pem"]
    certificate = x509.load_pem_x509_certificate(pair.cert_file.read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert "localhost" in names.get_values_for_type(x509.DNSName)
    assert [str(ip) for ip in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1", "::1"]
    first = pair.cert_file.read_bytes()
    own_certificate(folder, now=now + LIFETIME - RENEW_BEFORE - timedelta(minutes=1))
    assert pair.cert_file.read_bytes() == first, "a certificate that lasts is used again"
    own_certificate(folder, now=now + LIFETIME - RENEW_BEFORE)
    assert pair.cert_file.read_bytes() != first, "one near its end is made anew"


@pytest.mark.parametrize("harm", ["no key", "other key", "readable key", "no certificate", "other host"])
def test_a_pair_that_will_not_do_is_made_anew(tmp_path: Path, harm: str) -> None:
    pair = own_certificate(tmp_path)
    before = pair.cert_file.read_bytes()
    hosts: list[str] = []
    if harm == "no key":
        pair.key_file.unlink()
    elif harm == "other key":
        pair.key_file.write_bytes(own_certificate(tmp_path / "other").key_file.read_bytes())
    elif harm == "readable key":
        pair.key_file.chmod(0o644)
    elif harm == "no certificate":
        pair.cert_file.write_text("nothing")
    else:
        hosts = ["twin.example"]
    own_certificate(tmp_path, hosts=hosts).check()
    assert pair.cert_file.read_bytes() != before
    assert stat.S_IMODE(pair.key_file.stat().st_mode) == 0o600


def test_a_pair_that_does_not_fit_is_refused_before_the_port_is_bound(tmp_path: Path) -> None:
    one, two = own_certificate(tmp_path / "one"), own_certificate(tmp_path / "two")
    mixed = Certificate(cert_file=one.cert_file, key_file=two.key_file)
    with TwinOrg.open(schema=make_schema()) as org, pytest.raises(CertificateUnusable):
        TwinServer(org, tls=mixed)
