"""Sign in to an org: JWT bearer, client credentials, a ready token, or the `sf` command line.

Reads the settings that the caller prepared; writes nothing. A token lives in memory only and is never logged.
Source: Salesforce's OAuth 2.0 token endpoint, `POST /services/oauth2/token`.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal

import httpx
from msgspec import Struct
from pydantic import BaseModel, ConfigDict, ValidationError

from forcelift.errors import SignInFailed, TargetError, UsageError
from forcelift.protocols.clock import Clock
from forcelift.salesforce.failures import ApiError, parse_json
from forcelift.salesforce.hosts import is_sandbox_host

Flow = Literal["jwt", "client_credentials", "token", "sf_cli"]

_NEEDED: dict[Flow, tuple[str, ...]] = {
    "jwt": ("client_id", "username", "private_key"),
    "client_credentials": ("client_id", "client_secret"),
    "token": ("access_token",),
    "sf_cli": ("alias",),
}
_ASSERTION_LIFE = timedelta(minutes=3)  # the longest that Salesforce accepts
_CLI_TIMEOUT_S = 120
_NOTHING_DONE = "nothing was read from the org and nothing was written to it"


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthSettings:
    """How to sign in. Which fields are needed depends on `flow`; secrets are left out of the representation.

    `private_key` is the text of a PEM file. `audience` overrides the one that follows from the host (JWT only).
    """

    flow: Flow
    client_id: str | None = None
    client_secret: str | None = field(default=None, repr=False)
    username: str | None = None
    private_key: str | None = field(default=None, repr=False)
    access_token: str | None = field(default=None, repr=False)
    alias: str | None = None
    audience: str | None = None

    def check(self) -> None:
        """Raise `UsageError` if the flow is unknown or lacks a setting."""
        if self.flow not in _NEEDED:
            raise UsageError(f"`target.auth.flow` is `{self.flow}`", hint=f"write one of {', '.join(_NEEDED)}")
        missing = [name for name in _NEEDED[self.flow] if not getattr(self, name)]
        if missing:
            raise UsageError(
                f"`target.auth` with flow `{self.flow}` lacks {', '.join(f'`{name}`' for name in missing)}",
                hint="add what is missing to `target.auth` of the plan; secrets as ${ENV} or file:PATH",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """What a sign-in yields. `identity_url` ends in the Ids of org and user; None where the flow does not tell it."""

    access_token: str = field(repr=False)
    instance_url: str
    identity_url: str | None = None


PostForm = Callable[[str, dict[str, str]], httpx.Response]
"""Sends a form to a path of the sign-in host and gives the answer, whatever its status."""


class _TokenAnswer(BaseModel):
    model_config = ConfigDict(extra="ignore")

    access_token: str
    instance_url: str
    id: str | None = None


class _CliResult(BaseModel):
    model_config = ConfigDict(extra="ignore")

    accessToken: str  # noqa: N815 - the name that the command line prints
    instanceUrl: str | None = None  # noqa: N815


def sign_in(settings: AuthSettings, *, url: httpx.URL, post_form: PostForm, clock: Clock) -> Token:
    """Get a token for the org at `url`.

    Raises:
        SignInFailed: The org, or the `sf` command line, refused.
        UsageError: A setting is missing or cannot be used.
        OrgUnavailable: The org did not answer.
    """
    match settings.flow:
        case "token":
            return Token(access_token=settings.access_token or "", instance_url=str(url))
        case "sf_cli":
            return _token_of_cli(settings.alias or "", url=url)
        case "jwt":
            form = {
                "grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer",
                "assertion": _assertion(settings, url=url, clock=clock),
            }
        case "client_credentials":
            form = {
                "grant_type": "client_credentials",
                "client_id": settings.client_id or "",
                "client_secret": settings.client_secret or "",
            }
    response = post_form("/services/oauth2/token", form)
    if response.status_code != httpx.codes.OK:
        raise _refused(settings, response, url=url)
    try:
        answer = _TokenAnswer.model_validate(parse_json(response))
    except ValidationError as error:
        raise SignInFailed(
            f"`{url.host}` answered the sign-in with something that is no token",
            state=_NOTHING_DONE,
            hint="check that `target.url` is an org of Salesforce or a twin",
        ) from _without_values(error)
    return Token(access_token=answer.access_token, instance_url=answer.instance_url, identity_url=answer.id)


def expired(settings: AuthSettings) -> SignInFailed:
    """The error for a session that ended where no new one can be made."""
    return SignInFailed(
        f"the session at the org has expired and flow `{settings.flow}` cannot renew it",
        state="jobs that were closed go on in the org by themselves; the batch can be resumed",
        hint="put a new access token where the plan reads it from, then run `forcelift run --resume`; "
        "flow `jwt` or `client_credentials` renews by itself",
    )


def _assertion(settings: AuthSettings, *, url: httpx.URL, clock: Clock) -> str:
    import jwt  # with the cryptography below it, which no other flow needs

    host = "test" if is_sandbox_host(url.host) else "login"
    claims = {
        "iss": settings.client_id,
        "sub": settings.username,
        "aud": settings.audience or f"https://{host}.salesforce.com",
        "exp": int((clock.now() + _ASSERTION_LIFE).timestamp()),
    }
    try:
        return jwt.encode(claims, settings.private_key or "", algorithm="RS256")
    except (ValueError, TypeError, jwt.PyJWTError) as error:
        # The library's message may quote the key, so it is not passed on.
        raise SignInFailed(
            f"the private key of `target.auth` cannot be read ({type(error).__name__})",
            state=_NOTHING_DONE,
            hint="`private_key` must be an unencrypted RSA key in PEM form, best given as file:PATH",
        ) from None


class _Cause(Struct, frozen=True):
    error: str
    text: str  # part of the description, lower case; empty fits all
    cause: str
    hint: str


# Salesforce's token endpoint answers with a pair of a general code and a text; the first line that fits counts.
_CAUSES = (
    _Cause(
        "invalid_grant",
        "hasn't approved this consumer",
        "the user has not been allowed to use this connected app",
        "let the user's profile or a permission set of theirs use the app (OAuth policies, pre-authorised users)",
    ),
    _Cause(
        "invalid_app_access",
        "",
        "the app admits only users that an administrator approved, and this user is not one of them",
        "add the user's profile or a permission set of theirs to the app",
    ),
    _Cause(
        "invalid_client_id",
        "",
        "the org knows no app with this consumer key",
        "check `client_id` of `target.auth`; a new app takes up to ten minutes to work",
    ),
    _Cause(
        "invalid_client",
        "",
        "the consumer secret is wrong",
        "check `client_secret` of `target.auth`",
    ),
    _Cause(
        "invalid_grant",
        "expired access/refresh token",
        "the grant has expired or was revoked",
        "approve the app again for this user",
    ),
    _Cause(
        "invalid_grant",
        "audience is invalid",
        "the audience of the signed request does not fit the kind of org",
        "set `audience` of `target.auth` to https://test.salesforce.com (sandbox) or https://login.salesforce.com",
    ),
    _Cause(
        "invalid_grant",
        "assertion expired",
        "the signed request was already too old when it arrived",
        "set the clock of this machine",
    ),
    _Cause(
        "invalid_grant",
        "expired authorization code",
        "the signed request was already too old when it arrived",
        "set the clock of this machine",
    ),
    _Cause(
        "invalid_grant",
        "assertion",
        "the signature does not fit the certificate of the app",
        "check that `private_key` belongs to the certificate that the connected app holds",
    ),
    _Cause(
        "invalid_grant",
        "not supported on this domain",
        "this flow works only at the org's own address",
        "set `target.url` to the org's My Domain, such as https://example.my.salesforce.com",
    ),
    _Cause(
        "invalid_grant",
        "no client credentials user",
        "the app has no user to run as",
        "name a user in the app's client credentials flow (Run As)",
    ),
    _Cause(
        "invalid_grant",
        "login rate exceeded",
        "the user signed in more than 3,600 times within an hour",
        "wait an hour, and find what else signs in as this user",
    ),
    _Cause(
        "invalid_grant",
        "authentication failure",
        "the user does not exist in this org, is inactive, or may not sign in from here",
        "check `username` of `target.auth`, the user's login history, and the trusted addresses of profile and app",
    ),
    _Cause(
        "unsupported_grant_type",
        "",
        "the org does not offer this flow",
        "switch the flow on in the app's OAuth settings, or choose another `flow`",
    ),
)


def _refused(settings: AuthSettings, response: httpx.Response, *, url: httpx.URL) -> SignInFailed:
    api_error = ApiError.of(response)
    text = api_error.message.lower()
    found = next((cause for cause in _CAUSES if cause.error == api_error.code and cause.text in text), None)
    reason = found.cause if found else "for a reason that only its text tells"
    return SignInFailed(
        f"`{url.host}` refused the sign-in by flow `{settings.flow}`: {reason} "
        f"(HTTP {response.status_code}, {api_error})",
        state=_NOTHING_DONE,
        hint=found.hint if found else "look at the user's login history in the org's Setup",
    )


def _token_of_cli(alias: str, *, url: httpx.URL) -> Token:
    """Ask the `sf` command line for the token of an org that it is signed in to.

    Since May 2026 `sf org display` hides the token and `sf org auth show-access-token` shows it; older ones lack the
    second. The token comes by standard output, never by an argument.
    """
    shown = _run_cli("org", "display", alias=alias)
    token = shown.accessToken
    if not _looks_like_token(token):
        token = _run_cli("org", "auth", "show-access-token", alias=alias).accessToken
    if not _looks_like_token(token):
        raise SignInFailed(
            f"the `sf` command line shows no access token for `{alias}`",
            state=_NOTHING_DONE,
            hint=f"sign in again by `sf org login web --alias {alias}`",
        )
    return Token(access_token=token, instance_url=shown.instanceUrl or str(url))


def _looks_like_token(token: str) -> bool:
    return re.fullmatch(r"[A-Za-z0-9]{15,18}![\x21-\x7e]+", token) is not None


def _run_cli(*command: str, alias: str) -> _CliResult:
    program = shutil.which("sf")
    if program is None:
        raise SignInFailed(
            "flow `sf_cli` needs the `sf` command line, which is not on the PATH",
            state=_NOTHING_DONE,
            hint="install the Salesforce CLI, or choose another `flow`",
        )
    if alias.startswith("-"):
        raise UsageError("`target.auth.alias` begins with a dash", hint="write an alias or user name that `sf` knows")
    environment = {
        **os.environ,
        "SF_DISABLE_TELEMETRY": "true",
        "SF_AUTOUPDATE_DISABLE": "true",
        "SF_JSON_TO_STDOUT": "true",
    }
    try:
        done = subprocess.run(  # noqa: S603 - a fixed program, arguments as a list, no shell
            [program, *command, "--target-org", alias, "--json"],
            capture_output=True,
            timeout=_CLI_TIMEOUT_S,
            check=False,
            env=environment,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SignInFailed(
            f"`sf {' '.join(command)}` did not finish ({type(error).__name__})",
            state=_NOTHING_DONE,
            hint="run it by hand to see why",
        ) from None
    answer = _parse_cli(done.stdout)
    if done.returncode != 0 or not isinstance(answer.get("result"), dict):
        name = str(answer.get("name") or f"exit code {done.returncode}")
        raise SignInFailed(
            f"`sf {' '.join(command)}` failed for `{alias}` ({name})",
            state=_NOTHING_DONE,
            hint=f"see `sf org list`; sign in again by `sf org login web --alias {alias}`",
        )
    try:
        return _CliResult.model_validate(answer["result"])
    except ValidationError as error:
        raise SignInFailed(
            f"`sf {' '.join(command)}` printed no access token for `{alias}`",
            state=_NOTHING_DONE,
            hint="update the Salesforce CLI (`sf update`)",
        ) from _without_values(error)


def _parse_cli(output: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(output)
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) else {}


def _without_values(error: ValidationError) -> TargetError:
    """What was wrong with an answer, by field name only: the answer itself holds secrets."""
    places = sorted({".".join(str(part) for part in item["loc"]) or "the answer" for item in error.errors()})
    return TargetError(f"missing or wrong: {', '.join(places)}")
