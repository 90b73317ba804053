"""Sign-in to the twin: connected apps, the OAuth token endpoint's four flows, and sessions that outlive a restart.

Only hashes of tokens are stored. Time is the twin's clock throughout.
Source: Salesforce help, "OAuth Authorization Flows"; REST API Developer Guide, "Authorization".
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import math
import secrets
import urllib.parse
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Literal

import jwt
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

from forcelift.twin.errors import TwinError
from forcelift.twin.sessions import Session, SessionStore

JWT_BEARER: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_ASSERTION_LIFE_S: Final = 180
# CumulusCI writes the moment of signing as the end, so an org cannot refuse what ended a moment ago. How long that
# moment is, and by how much clocks may differ ahead, is our own choice.
_CLOCK_LEEWAY_S: Final = 60
_MILLISECONDS_FROM: Final = 1e11  # as seconds, the year 5138
LOGINS_PER_HOUR_MAX: Final = 3600  # of one user
PRODUCTION_AUDIENCE: Final = "https://login.salesforce.com"
SANDBOX_AUDIENCE: Final = "https://test.salesforce.com"

Flow = Literal["jwt", "client_credentials", "refresh_token", "password"]


class OAuthError(Exception):
    """The token endpoint refuses. `error` and `description` are Salesforce's words."""

    def __init__(self, error: str, description: str, *, status: int = 400) -> None:
        super().__init__(f"{error}: {description}")
        self.error = error
        self.description = description
        self.status = status


class LoginRefused(Exception):
    """The SOAP login refuses. `code` and `message` are Salesforce's words."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


class NoSuchUser(TwinError):
    """Somebody was to be signed in whom the org does not have, or who is not active."""

    def __init__(self, username: str, known: Sequence[str]) -> None:
        super().__init__(f"the org has no active user `{username}`; it has: {', '.join(known)}")


class PasswordPolicy(BaseModel):
    """Sign-in by password without a connected app's list: off in new orgs, as in Salesforce.

    `passwords` are by username, each with its security token appended. `soap_login` switches `login()` on.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    soap_login: bool = False
    passwords: Mapping[str, SecretStr] = Field(default_factory=dict)

    def is_right(self, username: str, password: str) -> bool:
        return password_is(
            {user.lower(): word for user, word in self.passwords.items()}.get(username.lower()), password
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Granted:
    """A session that was opened for a user."""

    token: str
    user_id: str
    username: str


class ConnectedApp(BaseModel):
    """A client that may sign in.

    `users` are those who may use it; None means all of the org's. With `admin_approved` the app's policy is "admin
    approved users are pre-authorized", else users approve it themselves: who is not in `users` gets another error.
    `run_as` is the user of the client-credentials flow.
    `certificate` is a PEM certificate or public key (RSA). `passwords` are only for the password flow, which is off
    unless `flows` names it, as in orgs made since Summer '23.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    client_id: str = Field(min_length=1)
    client_secret: SecretStr | None = None
    certificate: str | None = None
    users: tuple[str, ...] | None = None
    admin_approved: bool = False
    run_as: str | None = None
    flows: tuple[Flow, ...] = ("jwt", "client_credentials", "refresh_token")
    passwords: Mapping[str, SecretStr] = Field(default_factory=dict)

    @field_validator("certificate")
    @classmethod
    def _is_rsa(cls, value: str | None) -> str | None:
        if value is not None:
            load_public_key(value)
        return value

    def public_key(self) -> RSAPublicKey | None:
        return None if self.certificate is None else load_public_key(self.certificate)

    def secret_is(self, secret: str) -> bool:
        known = self.client_secret
        return known is not None and hmac.compare_digest(known.get_secret_value().encode(), secret.encode())


def load_public_key(pem: str) -> RSAPublicKey:
    """The RSA key of a PEM certificate or public key. Raises ValueError for anything else."""
    data = pem.encode()
    key = (
        x509.load_pem_x509_certificate(data).public_key() if b"BEGIN CERTIFICATE" in data else load_pem_public_key(data)
    )
    if not isinstance(key, RSAPublicKey):
        message = "the certificate of a connected app must hold an RSA key, as RS256 is the only algorithm"
        raise ValueError(message)  # noqa: TRY004 - a wrong value to whoever registers the app; pydantic tells only these
    return key


class SignIn:
    """The OAuth side of one org.

    Args:
        user_ids: Username to user Id, of active users. Usernames compare without case.
        audience: What `aud` of a JWT must be: login.salesforce.com, or test.salesforce.com for a sandbox.
    """

    def __init__(
        self,
        *,
        store: SessionStore,
        apps: Sequence[ConnectedApp],
        user_ids: Mapping[str, str],
        org_id: str,
        audience: str,
        now: Callable[[], datetime],
        policy: PasswordPolicy | None = None,
    ) -> None:
        self.store = store
        self._policy = policy or PasswordPolicy()
        self.apps = {app.client_id: app for app in apps}
        self._users = {name.lower(): (name, user_id) for name, user_id in user_ids.items()}
        self._org_id = org_id
        self._audience = audience
        self._now = now
        self._logins: dict[str, deque[datetime]] = {}

    def token(self, form: Mapping[str, str], *, basic: tuple[str, str] | None, instance_url: str) -> dict[str, Any]:
        """Answer `POST /services/oauth2/token`. Raises OAuthError."""
        match form.get("grant_type"):
            case None | "":
                raise OAuthError("invalid_request", "must specify grant type")
            case grant if grant == JWT_BEARER:
                return self._jwt(form, instance_url)
            case "client_credentials":
                if is_login_host(instance_url):
                    raise OAuthError("invalid_grant", "request not supported on this domain")
                return self._client_credentials(form, basic, instance_url)
            case "refresh_token":
                return self._refresh(form, basic, instance_url)
            case "password":
                return self._password(form, basic, instance_url)
            case _:
                raise OAuthError("unsupported_grant_type", "grant type not supported")

    def revoke(self, token: str) -> None:
        """End the session or the refresh token. Raises OAuthError for a token that is not known."""
        if not self.store.revoke(token):
            raise OAuthError("invalid_token", "invalid token: the token is unknown, expired or revoked already")

    def open_session(self, username: str, *, client_id: str = "") -> str:
        """Sign a user in without a flow, for whoever runs the twin. Raises NoSuchUser."""
        name, user_id = self._known(username)
        return self.store.open(user_id=user_id, username=name, client_id=client_id)

    def issue_refresh_token(self, client_id: str, username: str) -> str:
        """What the web-server flow would have given a person. Raises NoSuchUser, or KeyError for an unknown app."""
        name, user_id = self._known(username)
        return self.store.issue_refresh(user_id=user_id, username=name, client_id=self.apps[client_id].client_id)

    def _known(self, username: str) -> tuple[str, str]:
        user = self._users.get(username.lower())
        if user is None:
            raise NoSuchUser(username, [name for name, _ in self._users.values()])
        return user

    def _jwt(self, form: Mapping[str, str], instance_url: str) -> dict[str, Any]:
        assertion = form.get("assertion", "")
        try:
            unproved = jwt.decode(assertion, options={"verify_signature": False})
        except jwt.PyJWTError as error:
            raise OAuthError("invalid_grant", "invalid assertion") from error
        app = self._app(unproved.get("iss"))
        self._demand_flow(app, "jwt")
        key = app.public_key()
        if key is None:
            raise OAuthError("invalid_grant", "invalid assertion")
        try:
            # Times and audience are checked below: by the twin's clock, and with the errors of Salesforce.
            claims = jwt.decode(
                assertion, key, algorithms=["RS256"],
                options={"verify_exp": False, "verify_aud": False, "verify_iat": False, "verify_nbf": False},
            )  # fmt: skip
        except jwt.PyJWTError as error:
            raise OAuthError("invalid_grant", "invalid assertion") from error
        self._check_claims(claims)
        name, user_id = self._user(claims.get("sub"))
        self._check_approval(app, name)
        return self._grant(app, name, user_id, instance_url, dated=False)

    def _check_approval(self, app: ConnectedApp, name: str) -> None:
        if app.users is None or name.lower() in {user.lower() for user in app.users}:
            return
        if app.admin_approved:
            raise OAuthError("invalid_app_access", "user is not admin approved to access this app")
        raise OAuthError("invalid_grant", "user hasn't approved this consumer")

    def soap_login(self, username: str, password: str) -> Granted:
        """Answer `login()`. Raises LoginRefused."""
        if not self._policy.soap_login:
            raise LoginRefused("INVALID_OPERATION", "SOAP API login() is disabled by default in this org.")
        user = self._users.get(username.lower())
        if user is None or not self._policy.is_right(username, password):
            text = "Invalid username, password, security token; or user locked out."
            raise LoginRefused("INVALID_LOGIN", text)
        name, user_id = user
        try:
            self._count_login(name)
        except OAuthError as error:
            raise LoginRefused("INVALID_LOGIN", error.description) from error
        return Granted(token=self.open_session(name), user_id=user_id, username=name)

    def _check_claims(self, claims: Mapping[str, Any]) -> None:
        audience = claims.get("aud")
        named = audience if isinstance(audience, list) else [audience]
        if self._audience not in [str(item).rstrip("/") for item in named]:
            raise OAuthError("invalid_grant", "audience is invalid")
        expires = seconds_of(claims.get("exp"))
        if expires is None:
            raise OAuthError("invalid_grant", "invalid assertion")
        now = self._now().timestamp()
        if expires <= now - _CLOCK_LEEWAY_S:
            raise OAuthError("invalid_grant", "assertion expired")
        # The Salesforce CLI adds 300 to a time in milliseconds and signs in to every org with that: no org can hold
        # such numbers to the three minutes, and whoever writes seconds is told by the guide to stay within them.
        if now + _ASSERTION_LIFE_S + _CLOCK_LEEWAY_S < expires < _MILLISECONDS_FROM:
            raise OAuthError("invalid_grant", "invalid assertion")

    def _client_credentials(
        self, form: Mapping[str, str], basic: tuple[str, str] | None, instance_url: str
    ) -> dict[str, Any]:
        client_id, secret = basic or (form.get("client_id", ""), form.get("client_secret", ""))
        app = self._app(client_id)
        if not app.secret_is(secret):
            raise OAuthError("invalid_client", "invalid client credentials", status=401 if basic else 400)
        self._demand_flow(app, "client_credentials")
        if app.run_as is None:
            raise OAuthError("invalid_grant", "no client credentials user enabled")
        name, user_id = self._user(app.run_as)
        return self._grant(app, name, user_id, instance_url, dated=True)

    def _refresh(self, form: Mapping[str, str], basic: tuple[str, str] | None, instance_url: str) -> dict[str, Any]:
        client_id, secret = basic or (form.get("client_id", ""), form.get("client_secret", ""))
        app = self._app(client_id)
        if (secret or app.client_secret is not None) and not app.secret_is(secret):
            raise OAuthError("invalid_client", "invalid client credentials", status=401 if basic else 400)
        self._demand_flow(app, "refresh_token")
        owner = self.store.find_refresh(form.get("refresh_token", ""))
        if owner is None or owner.client_id != app.client_id:
            raise OAuthError("invalid_grant", "expired access/refresh token")
        return self._grant(app, owner.username, owner.user_id, instance_url, dated=True)

    def _password(self, form: Mapping[str, str], basic: tuple[str, str] | None, instance_url: str) -> dict[str, Any]:
        client_id, secret = basic or (form.get("client_id", ""), form.get("client_secret", ""))
        app = self._app(client_id)
        self._demand_flow(app, "password")
        if not app.secret_is(secret):
            raise OAuthError("invalid_client", "invalid client credentials", status=401 if basic else 400)
        name, user_id = self._user(form.get("username"))
        known = {user.lower(): word for user, word in app.passwords.items()}.get(name.lower())
        given = form.get("password", "")
        if not password_is(known, given) and not self._policy.is_right(name, given):
            raise OAuthError("invalid_grant", "authentication failure")
        return self._grant(app, name, user_id, instance_url, dated=True)

    def _app(self, client_id: object) -> ConnectedApp:
        app = self.apps.get(str(client_id or ""))
        if app is None:
            raise OAuthError("invalid_client_id", "client identifier invalid")
        return app

    def _demand_flow(self, app: ConnectedApp, flow: Flow) -> None:
        if flow not in app.flows:
            raise OAuthError("unsupported_grant_type", "grant type not supported")

    def _user(self, username: object) -> tuple[str, str]:
        user = self._users.get(str(username or "").lower())
        if user is None:
            raise OAuthError("invalid_grant", "authentication failure")
        return user

    def _grant(self, app: ConnectedApp, name: str, user_id: str, instance_url: str, *, dated: bool) -> dict[str, Any]:
        self._count_login(name)
        identity = f"{instance_url}/id/{self._org_id}/{user_id}"
        answer: dict[str, Any] = {
            "access_token": self.store.open(user_id=user_id, username=name, client_id=app.client_id),
            "scope": "api",
            "instance_url": instance_url,
            "id": identity,
            "token_type": "Bearer",
        }
        if dated:
            issued_at = str(int(self._now().timestamp() * 1000))
            answer["issued_at"] = issued_at
            if app.client_secret is not None:
                answer["signature"] = sign_identity(app.client_secret.get_secret_value(), identity, issued_at)
        return answer

    def _count_login(self, name: str) -> None:
        """Refuse beyond 3600 logins of a user in an hour."""
        now = self._now()
        recent = self._logins.setdefault(name.lower(), deque())
        while recent and recent[0] <= now - timedelta(hours=1):
            recent.popleft()
        if len(recent) >= LOGINS_PER_HOUR_MAX:
            raise OAuthError("invalid_grant", "login rate exceeded")
        recent.append(now)


def seconds_of(claim: Any) -> float | None:
    """A claim's point in time; None if it is none. simple-salesforce writes it as text, and real orgs take that."""
    if isinstance(claim, bool) or not isinstance(claim, (int, float, str)):
        return None
    try:
        seconds = float(claim)
    except (ValueError, OverflowError):
        return None
    return seconds if math.isfinite(seconds) else None


def password_is(known: SecretStr | None, given: str) -> bool:
    return known is not None and hmac.compare_digest(known.get_secret_value().encode(), given.encode())


def is_login_host(url: str) -> bool:
    """True for the hosts that all orgs share; some flows need the org's own."""
    host = url.partition("://")[2].partition("/")[0].partition(":")[0]
    return host.lower() in ("login.salesforce.com", "test.salesforce.com")


def sign_identity(secret: str, identity: str, issued_at: str) -> str:
    """The `signature` of a token answer: HMAC-SHA256 over identity URL and issue time, with the client's secret."""
    digest = hmac.new(secret.encode(), f"{identity}{issued_at}".encode(), hashlib.sha256).digest()
    return base64.b64encode(digest).decode()


def parse_basic(header: str | None) -> tuple[str, str] | None:
    """Client id and secret of an `Authorization: Basic` header; None if there is none.

    Raises:
        OAuthError: The header cannot be read.
    """
    kind, _, value = (header or "").partition(" ")
    if kind.lower() != "basic":
        return None
    try:
        name, separator, secret = base64.b64decode(value, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError) as error:
        raise OAuthError("invalid_client", "invalid client credentials", status=401) from error
    if not separator:
        raise OAuthError("invalid_client", "invalid client credentials", status=401)
    return urllib.parse.unquote(name), urllib.parse.unquote(secret)


def default_app(run_as: str) -> ConnectedApp:
    """The app of a twin for which none was registered."""
    return ConnectedApp(
        client_id="3MVG9" + secrets.token_hex(40), client_secret=SecretStr(secrets.token_hex(32)), run_as=run_as
    )


__all__ = [
    "JWT_BEARER",
    "PRODUCTION_AUDIENCE",
    "SANDBOX_AUDIENCE",
    "ConnectedApp",
    "Granted",
    "LoginRefused",
    "NoSuchUser",
    "OAuthError",
    "PasswordPolicy",
    "Session",
    "SignIn",
    "default_app",
    "parse_basic",
    "sign_identity",
]
