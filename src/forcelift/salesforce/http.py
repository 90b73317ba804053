"""One org over HTTP: every request, its retries, the renewal of the session, and what a failure means.

Reads:   answers of the one host that was signed in to; redirects are not followed.
Writes:  whatever the calls change in the org.
Re-run:  GETs are repeated a few times here; calls that change something are sent once, or once more with a new session
         after a 401, which proves that the first was not carried out.
"""

from __future__ import annotations

import json
import logging
import random
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import closing
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar
from urllib.parse import urlencode

import httpx

from forcelift.errors import OrgUnavailable, SignInFailed, TargetError
from forcelift.protocols.clock import Clock
from forcelift.salesforce import failures
from forcelift.salesforce.auth import AuthSettings, Token, expired, sign_in
from forcelift.salesforce.client import HttpSettings, make_client
from forcelift.salesforce.download import read_pieces
from forcelift.salesforce.hosts import is_login_host, pinned_instance

log = logging.getLogger(__name__)

TWIN_HEADER = "X-Forcelift-Twin"
"""A twin says `1` in this header of every answer; no real org sends it."""

_LIMIT_INFO = re.compile(r"(?:^|[;,\s])api-usage=(\d+)/(\d+)")
_SERVER_WAIT_S_MAX = 120.0

_AS_CSV = {"Accept": "text/csv"}

Body = Callable[[], Iterable[bytes]]
T = TypeVar("T")


class Transport:
    """A signed-in connection to one org. Safe for use by several threads at once.

    Args:
        url: Where to sign in: scheme, host and port, checked by `hosts.base_url`.
        auth: How to sign in.
        clock: Time, for waits and for signed requests.
        rng: Randomness of the waits.
        expect_twin: Whether the host must be, or must not be, a twin; None takes either.
        ca_file: A PEM file of further certificate authorities.
        wire: The transport below httpx, for tests where the wire does not matter.
    """

    def __init__(
        self,
        *,
        url: httpx.URL,
        auth: AuthSettings,
        clock: Clock,
        rng: random.Random,
        expect_twin: bool | None = None,
        ca_file: str | None = None,
        settings: HttpSettings | None = None,
        wire: httpx.BaseTransport | None = None,
    ) -> None:
        auth.check()
        self.settings = settings or HttpSettings()
        self.base = url
        self.is_twin = False
        self._sign_in_url = url
        self._auth = auth
        self._clock = clock
        self._rng = rng
        self._expect_twin = expect_twin
        self._client = make_client(url, settings=self.settings, ca_file=ca_file, wire=wire)
        self._lock = threading.Lock()
        self._token: Token | None = None
        self._flight: Future[Token] | None = None
        self._calls = 0
        self._requests_left: int | None = None

    @property
    def calls(self) -> int:
        """HTTP requests sent so far, sign-ins and repeats included."""
        return self._calls

    @property
    def requests_left(self) -> int | None:
        """Daily API requests left by the last `Sforce-Limit-Info`."""
        return self._requests_left

    @property
    def token(self) -> Token:
        """The token of the present session; `open` must have been called."""
        if self._token is None:
            raise SignInFailed("not signed in")
        return self._token

    def open(self) -> list[str]:
        """Find out whom we speak to, then sign in. Returns the API versions that the org offers, oldest first.

        The first request carries no credentials: it asks for the API versions, and the answer tells a twin from an org.
        """
        versions: list[str] = []
        if is_login_host(self.base.host):
            if self._expect_twin:
                raise _wrong_kind(self.base.host, is_twin=False)
        else:
            versions = self._meet(self.base)
        self._token = self._sign_in()
        if self.base != self._sign_in_url:
            versions = self._meet(self.base)
        return versions

    def versions(self) -> tuple[list[str], str | None]:
        """The API versions that the host offers now, oldest first, and the `Date` of its answer."""
        what = f"ask `{self.base.host}` for its API versions"
        body, headers = self.get_json("/services/data", what=what)
        return _versions(body, host=self.base.host), headers.get("Date")

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    def get_json(self, path: str, *, what: str, headers: Mapping[str, str] | None = None) -> tuple[Any, httpx.Headers]:
        """GET and parse; repeated a few times while the org does not answer."""

        def once() -> tuple[Any, httpx.Headers]:
            response = self._read("GET", path, what=what, changes=False, headers=headers)
            body = failures.parse_json(response)
            if body is None:
                raise failures.broken_answer(what=what, reason="it is not JSON", changes=False)
            return body, response.headers

        return self.repeat(once)

    def get_whole(self, path: str, *, what: str) -> tuple[bytes, httpx.Headers]:
        """GET a whole body of any type, surely complete; repeated a few times while it does not come."""

        def once() -> tuple[bytes, httpx.Headers]:
            with closing(self._answer("GET", path, what=what, changes=False, headers=_AS_CSV)) as response:
                return b"".join(read_pieces(response, what=what)), response.headers

        return self.repeat(once)

    def open_stream(self, path: str, *, what: str) -> httpx.Response:
        """GET up to the headers, repeated a few times. The caller reads the body and closes the answer."""
        return self.repeat(lambda: self._answer("GET", path, what=what, changes=False, headers=_AS_CSV))

    def send_json(self, method: str, path: str, body: Any, *, what: str) -> Any:
        """A call that changes something, sent once; returns the parsed answer.

        Raises:
            LostReply: It may have been carried out.
        """
        content = json.dumps(body).encode()
        response = self._read(
            method,
            path,
            what=what,
            changes=True,
            headers={"Content-Type": "application/json"},
            content=lambda: [content],
        )
        parsed = failures.parse_json(response)
        if parsed is None:
            raise failures.broken_answer(what=what, reason="it is not JSON", changes=True)
        return parsed

    def send(
        self,
        method: str,
        path: str,
        *,
        what: str,
        headers: Mapping[str, str] | None = None,
        content: Body | None = None,
    ) -> None:
        """A call that changes something and answers nothing, sent once. `content()` starts the body anew.

        Raises:
            LostReply: It may have been carried out. A web page is such an answer: a proxy sends one with status 200.
        """
        response = self._read(method, path, what=what, changes=True, headers=headers, content=content)
        if response.headers.get("Content-Type", "").startswith("text/html"):
            raise failures.broken_answer(what=what, reason="it is a web page", changes=True)

    def send_for_json(self, method: str, path: str, *, what: str, headers: Mapping[str, str], content: Body) -> Any:
        """A call that changes something by a body of any type, sent once; returns the parsed answer."""
        response = self._read(method, path, what=what, changes=True, headers=headers, content=content)
        parsed = failures.parse_json(response)
        if parsed is None:
            raise failures.broken_answer(what=what, reason="it is not JSON", changes=True)
        return parsed

    def post_soap(self, path: str, envelope: Callable[[str], bytes], *, what: str) -> tuple[int, bytes]:
        """A SOAP call that changes nothing; returns status and body of an answer or a fault, which is a 500.

        Args:
            envelope: Makes the request for an access token, which SOAP carries in the body.
        """

        def once(token: Token) -> tuple[int, bytes]:
            content = envelope(token.access_token)
            headers = {"Content-Type": "text/xml; charset=UTF-8", "SOAPAction": '""', "Accept": "text/xml"}
            with closing(
                self._send(
                    "POST", path, what=what, changes=False, token=None, headers=headers, content=lambda: [content]
                )
            ) as response:
                self._load(response, what=what, changes=False)
            if "xml" in response.headers.get("Content-Type", "") and response.status_code in (200, 500):
                return response.status_code, response.content
            raise failures.from_response(response, what=what, changes=False)

        token = self.token
        status, body = self.repeat(lambda: once(token))
        if status == 500 and b"INVALID_SESSION_ID" in body:
            renewed = self._renew(token)
            status, body = self.repeat(lambda: once(renewed))
        return status, body

    def repeat(self, once: Callable[[], T]) -> T:
        """Do something that changes nothing, again while the org is unavailable, with growing, jittered waits."""
        for attempt in range(1, self.settings.get_attempts):
            try:
                return once()
            except OrgUnavailable as error:
                wait = self._wait(attempt, error)
                if wait is None:
                    raise
                log.info("%s; trying again in %.1f s", error.message, wait, extra={"action": "org_call_repeated"})
                self._clock.sleep(wait)
        return once()

    def _wait(self, attempt: int, error: OrgUnavailable) -> float | None:
        """Seconds until the next attempt; None if the org asks for more patience than is spent here."""
        asked = _retry_after_s(error, now=self._clock.now())
        if asked is not None:
            return asked if asked <= _SERVER_WAIT_S_MAX else None
        longest = min(self.settings.backoff_s_max, self.settings.backoff_s * 2 ** (attempt - 1))
        return float(longest * self._rng.uniform(0.5, 1.0))

    def _read(self, method: str, path: str, *, what: str, changes: bool, **parts: Any) -> httpx.Response:
        """An exchange with its body read."""
        with closing(self._answer(method, path, what=what, changes=changes, **parts)) as response:
            self._load(response, what=what, changes=changes)
            return response

    def _answer(self, method: str, path: str, *, what: str, changes: bool, **parts: Any) -> httpx.Response:
        """A successful answer whose body has not been read. A session that has expired is renewed once."""
        token = self.token
        response = self._send(method, path, what=what, changes=changes, token=token, **parts)
        if response.is_success:
            return response
        with closing(response):
            self._load(response, what=what, changes=changes)
        if failures.is_expired_session(response):
            renewed = self._renew(token)
            response = self._send(method, path, what=what, changes=changes, token=renewed, **parts)
            if response.is_success:
                return response
            with closing(response):
                self._load(response, what=what, changes=changes)
        raise failures.from_response(response, what=what, changes=changes)

    def _send(
        self,
        method: str,
        path: str,
        *,
        what: str,
        changes: bool,
        token: Token | None,
        origin: httpx.URL | None = None,
        headers: Mapping[str, str] | None = None,
        content: Body | None = None,
    ) -> httpx.Response:
        """One request, one answer of any status, its body not read."""
        url = httpx.URL(str(origin or self.base).rstrip("/") + path)
        sent = {**(headers or {}), **({"Authorization": f"Bearer {token.access_token}"} if token else {})}
        if content is not None and "Content-Length" not in sent:
            parts = list(content())
            sent["Content-Length"] = str(sum(map(len, parts)))
            body: Iterable[bytes] | None = parts
        else:
            body = content() if content is not None else None
        request = self._client.build_request(
            method, url, headers=sent, content=_stream(body), timeout=self.settings.timeout(changes=changes)
        )
        with self._lock:
            self._calls += 1
        try:
            response = self._client.send(request, stream=True)
        except httpx.RequestError as error:
            raise failures.from_exception(error, what=what, host=url.host, changes=changes) from error
        log.debug("%s %s: %d", method, url.path, response.status_code, extra={"action": "org_answered"})
        self._note_limits(response)
        return response

    def _load(self, response: httpx.Response, *, what: str, changes: bool) -> None:
        try:
            response.read()
        except httpx.RequestError as error:
            if response.is_success or failures.is_transient_status(response.status_code):
                raise failures.from_exception(error, what=what, host=response.url.host, changes=changes) from error
            # The status alone says that the org refused; the rest of its explanation got lost on the way.
            raise failures.refused_without_body(response, what=what) from error

    def _note_limits(self, response: httpx.Response) -> None:
        found = _LIMIT_INFO.search(response.headers.get("Sforce-Limit-Info", ""))
        if found:
            self._requests_left = max(0, int(found[2]) - int(found[1]))

    def _meet(self, origin: httpx.URL) -> list[str]:
        """Ask a host for its API versions without credentials; refuse a twin for an org and an org for a twin."""
        what = f"ask `{origin.host}` for its API versions"

        def once() -> list[str]:
            with closing(
                self._send("GET", "/services/data", what=what, changes=False, token=None, origin=origin)
            ) as response:
                is_twin = response.headers.get(TWIN_HEADER) == "1"
                self._load(response, what=what, changes=False)
            if failures.is_transient_status(response.status_code):
                raise failures.from_response(response, what=what, changes=False)
            if self._expect_twin is not None and self._expect_twin != is_twin:
                raise _wrong_kind(origin.host, is_twin=is_twin)
            if response.is_redirect:
                raise failures.from_response(response, what=what, changes=False)
            self.is_twin = is_twin
            return _versions(failures.parse_json(response), host=origin.host)

        return self.repeat(once)

    def _sign_in(self) -> Token:
        token = sign_in(self._auth, url=self._sign_in_url, post_form=self._post_form, clock=self._clock)
        instance = pinned_instance(self._sign_in_url, token.instance_url)
        if self._token is not None and instance != self.base:
            raise TargetError(
                f"a new sign-in names `{instance.host}` as the org's host, the first one named `{self.base.host}`",
                hint="set `target.url` to the org's My Domain",
            )
        self.base = instance
        return token

    def _post_form(self, path: str, form: dict[str, str]) -> httpx.Response:
        """Send a sign-in form; repeated a few times, since a sign-in changes nothing."""
        what = f"sign in at `{self._sign_in_url.host}`"
        content = urlencode(form).encode()

        def once() -> httpx.Response:
            with closing(
                self._send(
                    "POST",
                    path,
                    what=what,
                    changes=False,
                    token=None,
                    origin=self._sign_in_url,
                    headers={"Content-Type": "application/x-www-form-urlencoded"},
                    content=lambda: [content],
                )
            ) as response:
                self._load(response, what=what, changes=False)
            if failures.is_transient_status(response.status_code) or response.is_redirect:
                raise failures.from_response(response, what=what, changes=False)
            return response

        return self.repeat(once)

    def _renew(self, stale: Token) -> Token:
        """A token newer than `stale`. Threads that ask at the same time share one sign-in and its outcome."""
        with self._lock:
            if self._token is not None and self._token is not stale:
                return self._token
            flight, leads = self._flight, self._flight is None
            if flight is None:
                flight = self._flight = Future()
        if not leads:
            return flight.result()
        try:
            token = self._fresh_token(stale)
        except BaseException as error:
            with self._lock:
                self._flight = None
            flight.set_exception(error)
            raise
        with self._lock:
            self._token, self._flight = token, None
        flight.set_result(token)
        log.info("signed in again after the session had expired", extra={"action": "session_renewed"})
        return token

    def _fresh_token(self, stale: Token) -> Token:
        if self._auth.flow == "token":
            raise expired(self._auth)
        token = self._sign_in()
        if self._auth.flow == "sf_cli" and token.access_token == stale.access_token:
            raise expired(self._auth)
        return token


def _stream(body: Iterable[bytes] | None) -> Iterator[bytes] | None:
    """A plain generator: httpx reads other iterables by a slower way (bytes objects at a fourth of the speed)."""
    return (piece for piece in body) if body is not None else None


def _retry_after_s(error: OrgUnavailable, *, now: datetime) -> float | None:
    """Seconds that a `Retry-After` header asks for: a number, or a date."""
    asked = error.retry_after if isinstance(error, failures.Busy) else None
    if not asked:
        return None
    if asked.strip().isdigit():
        return float(asked)
    try:
        return max(0.0, (parsedate_to_datetime(asked) - now).total_seconds())
    except (ValueError, TypeError):  # not a date, or one without a zone
        return None


def _versions(body: Any, *, host: str) -> list[str]:
    if isinstance(body, list) and body and all(isinstance(item, dict) and "version" in item for item in body):
        return [str(item["version"]) for item in body]
    raise TargetError(
        f"`{host}` does not answer as an org of Salesforce does",
        state="no credentials were sent",
        hint="set `target.url` to the org's My Domain, such as https://example.my.salesforce.com",
    )


def _wrong_kind(host: str, *, is_twin: bool) -> TargetError:
    kind, wanted = ("a twin", "a real org") if is_twin else ("no twin", "a twin")
    return TargetError(
        f"`{host}` is {kind}, but the plan's target is {wanted}",
        state="no credentials were sent, nothing was read and nothing was written",
        hint="correct `target.url` of the plan: a real token is never sent to a twin, nor a twin's to an org",
    )
