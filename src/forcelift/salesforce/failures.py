"""What a failed HTTP exchange means for the caller: certainly not done, unknown, refused, or a limit.

The rule that everything rests on: once a request that changes something may have left this machine, only an answer
that says "refused" proves that it was not carried out. All else is `LostReply`.
"""

from __future__ import annotations

import json
import re
import ssl
from http import HTTPStatus
from typing import Any
from urllib.request import getproxies, proxy_bypass

import httpx
from msgspec import Struct

from forcelift.errors import (
    LostReply,
    OrgLimitReached,
    OrgNotFound,
    OrgRefused,
    OrgUnavailable,
    SignInFailed,
    TargetError,
)
from forcelift.salesforce.catalogue import find
from forcelift.salesforce.results import scrub

LIMIT_CODES = frozenset({"REQUEST_LIMIT_EXCEEDED", "LIMIT_EXCEEDED", "EXCEEDEDQUOTA", "EXCEEDED_QUOTA"})
"""Codes, upper-cased, with which an org says that a quota is used up."""

NOT_EXPIRY_TEXTS = ("This session is not valid for use with the REST API", "Connected app is not attached to Agent")
"""Texts of a 401 that a new sign-in would not mend."""

# Refusals of the edge in front of the org (no route yet, too many requests): no server of the org saw the request.
_EDGE_REFUSALS = frozenset({420, 429})
_TRANSIENT_STATUSES = frozenset({406, 420, 429})
_MESSAGE_CHARS_MAX = 1000
_SOQL_ECHO = re.compile(r"(?s)^.*ERROR at Row:\d+:Column:\d+\s*")

_UNTOUCHED = "the request changed nothing in the org"
_UNKNOWN = "the request was sent; whether it took effect in the org is unknown"

# With these, no byte of the request has been sent: the connection itself was not made.
_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError)
_PROXY_ANSWER = re.compile(r"(\d{3})\b")  # how a refused CONNECT begins its message


class ApiError(Struct, frozen=True, kw_only=True):
    """The first error of an answer's body. `code` is `HTTP_nnn` where the body names none."""

    code: str
    message: str

    def __str__(self) -> str:
        parts = ("" if self.code.startswith("HTTP_") else self.code, self.message)
        return ": ".join(part for part in parts if part)

    @classmethod
    def of(cls, response: httpx.Response) -> ApiError:
        """Read an error body: an array of REST, an object of OAuth, HTML of the edge, or nothing at all."""
        body = parse_json(response)
        if isinstance(body, list) and body:
            body = body[0]
        if isinstance(body, dict):
            code = body.get("errorCode") or body.get("exceptionCode") or body.get("error")
            message = body.get("message") or body.get("exceptionMessage") or body.get("error_description") or ""
            if isinstance(code, str) and code:
                return cls(code=code, message=public_text(str(message)))
        return cls(code=f"HTTP_{response.status_code}", message=_reason(response))


def parse_json(response: httpx.Response) -> Any:
    """The parsed body, or None if it is not JSON (an HTML page of the edge, an empty or broken body)."""
    try:
        return json.loads(response.content)
    except (ValueError, httpx.ResponseNotRead):
        return None


def public_text(message: str) -> str:
    """A message of the org without the values and the query that it may echo, in one line of bounded length."""
    text = scrub(_SOQL_ECHO.sub("", message))
    return " ".join(text.split())[:_MESSAGE_CHARS_MAX]


def is_expired_session(response: httpx.Response) -> bool:
    """True if a new sign-in would mend this 401."""
    if response.status_code != HTTPStatus.UNAUTHORIZED:
        return False
    api_error = ApiError.of(response)
    return api_error.code == "INVALID_SESSION_ID" and not any(text in api_error.message for text in NOT_EXPIRY_TEXTS)


def is_transient_status(status: int) -> bool:
    """True for answers that a repeated GET may not get again."""
    return status >= 500 or status in _TRANSIENT_STATUSES


class Busy(OrgUnavailable):
    """The org, or the edge in front of it, asks to come back later. `retry_after` is its header, as it was sent."""

    def __init__(self, message: str, *, state: str | None, hint: str | None, retry_after: str | None) -> None:
        super().__init__(message, state=state, hint=hint)
        self.retry_after = retry_after


def from_exception(error: httpx.RequestError, *, what: str, host: str, changes: bool) -> TargetError:
    """The error for an exchange that ended without an answer.

    Args:
        error: What httpx raised.
        what: The call in words, without values ("create a bulk job").
        host: The host that was called.
        changes: True if the call changes something in the org.
    """
    cause = _network_cause(error)
    if isinstance(error, httpx.ProxyError) and (answer := _PROXY_ANSWER.match(str(error))) is not None:
        return _from_proxy(int(answer[1]), what=what, host=host)
    if _is_certificate_refused(error):
        return TargetError(
            f"could not {what}: the certificate of `{host}` is not trusted ({cause})",
            state=_UNTOUCHED,
            hint="check the host in `target.url`"
            if "mismatch" in cause.lower()
            else "if a proxy of your company opens HTTPS, set `target.ca_file` to its certificate authority's PEM file",
        )
    if changes and not isinstance(error, _NOT_SENT):
        return LostReply(f"could not {what}: no answer from `{host}` ({cause})", state=_UNKNOWN)
    return OrgUnavailable(
        f"could not {what}: `{host}` did not answer ({cause})",
        state=_UNTOUCHED,
        hint=f"check `target.url`, the network and the proxy settings{_proxy_of(host)}; see also status.salesforce.com",
    )


def _from_proxy(status: int, *, what: str, host: str) -> TargetError:
    """The error for a proxy's refusal to make a tunnel; nothing of the request has reached the org."""
    if status == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED:
        return TargetError(
            f"could not {what}: the proxy{_proxy_of(host)} refuses the user and password of its URL (HTTP 407)",
            state=_UNTOUCHED,
            hint="write `HTTPS_PROXY` as http://user:password@host:port, other characters than letters and digits of "
            "the password as %XX",
        )
    if is_transient_status(status):
        return OrgUnavailable(
            f"could not {what}: the proxy{_proxy_of(host)} does not reach `{host}` (HTTP {status})",
            state=_UNTOUCHED,
            hint="try again later; if it stays, ask who runs the proxy",
        )
    return TargetError(
        f"could not {what}: the proxy{_proxy_of(host)} does not let us through to `{host}` (HTTP {status})",
        state=_UNTOUCHED,
        hint=f"ask who runs the proxy to allow CONNECT to `{host}`, or name the host in `NO_PROXY` to go without it",
    )


def _proxy_of(host: str) -> str:
    """Host and port of the proxy on the way to a host, for messages; its user and password are left out."""
    settings = getproxies()
    setting = settings.get("https") or settings.get("all")
    if not setting or proxy_bypass(host):
        return ""
    try:
        proxy = httpx.URL(setting if "://" in setting else f"http://{setting}")
    except httpx.InvalidURL:
        return ""
    return f" `{proxy.host}{f':{proxy.port}' if proxy.port else ''}`"


def from_response(response: httpx.Response, *, what: str, changes: bool) -> TargetError:
    """The error for an answer that is not a success."""
    status = response.status_code
    api_error = ApiError.of(response)
    message = f"could not {what}: HTTP {status}, {api_error}"
    if is_transient_status(status):
        if changes and status not in _EDGE_REFUSALS:
            return LostReply(message, state=_UNKNOWN)
        return Busy(message, state=_UNTOUCHED, hint="try again later", retry_after=response.headers.get("Retry-After"))
    if status == HTTPStatus.UNAUTHORIZED:
        return SignInFailed(message, state=_UNTOUCHED, hint=_hint(api_error, in_org=True))
    if HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
        target = httpx.URL(response.headers.get("Location", "")).host
        return OrgRefused(
            f"could not {what}: HTTP {status}, the org points to another address{f' at `{target}`' if target else ''}",
            code="REDIRECT",
            http_status=status,
            state=_UNTOUCHED,
            hint="a token does not follow redirects: set `target.url` to the org's present My Domain",
        )
    kind: type[OrgRefused] = OrgRefused
    if api_error.code.upper() in LIMIT_CODES:
        kind = OrgLimitReached
    elif status == HTTPStatus.NOT_FOUND:
        kind = OrgNotFound
    return kind(
        message,
        code=api_error.code,
        http_status=status,
        state=_UNTOUCHED,
        hint=_hint(api_error),
    )


def refused_without_body(response: httpx.Response, *, what: str) -> TargetError:
    """The error for a refusal whose explanation got lost on the way; the status alone proves that nothing was done."""
    status = response.status_code
    return OrgRefused(
        f"could not {what}: HTTP {status}, and the explanation was cut off",
        code=f"HTTP_{status}",
        http_status=status,
        state=_UNTOUCHED,
        hint="run the same command again",
    )


def broken_answer(*, what: str, reason: str, changes: bool) -> TargetError:
    """The error for a 2xx answer whose body cannot be used."""
    message = f"could not {what}: the answer cannot be read ({reason})"
    if changes:
        return LostReply(message, state=_UNKNOWN)
    return OrgUnavailable(
        message, state=_UNTOUCHED, hint="try again later; a proxy in between may have changed the answer"
    )


def _hint(api_error: ApiError, *, in_org: bool = False) -> str | None:
    advice = find(api_error.code, api_error.message)
    if advice is None:
        return "see the signed-in user's permissions in the org" if api_error.code == "HTTP_403" else None
    return advice.org if in_org else advice.remedy


def _reason(response: httpx.Response) -> str:
    kind = response.headers.get("Content-Type", "").split(";")[0].strip()
    size = len(response.content)
    return "an empty answer" if size == 0 else f"an answer of {size:,} bytes of {kind or 'an unnamed type'}"


def _network_cause(error: httpx.RequestError) -> str:
    text = " ".join(str(error).split())[:200]
    name = {
        "ConnectTimeout": "connecting took too long",
        "ReadTimeout": "no answer within the time allowed",
        "WriteTimeout": "sending took too long",
        "PoolTimeout": "no free connection within the time allowed",
    }.get(type(error).__name__)
    return name or text or type(error).__name__


def _is_certificate_refused(error: BaseException) -> bool:
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, ssl.SSLCertVerificationError) or "CERTIFICATE_VERIFY_FAILED" in str(seen):
            return True
        seen = seen.__cause__ or seen.__context__
    return False
