"""The URLs of a plan: which schemes go where, what in them is secret, and how they look without it.

Forms are SQLAlchemy's (docs.sqlalchemy.org, "Database URLs"): three slashes before a relative path, four before an
absolute one. Folders and twins have the short forms `files:PATH` and `twin:PATH`.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, urlsplit

from msgspec import Struct

SOURCE_SCHEMES = ("oracle", "postgresql", "sqlite", "duckdb", "files")
AUDIT_SCHEMES = ("sqlite", "postgresql", "oracle")
SERVER_SCHEMES = ("oracle", "postgresql")
TARGET_SCHEMES = ("https", "http", "twin")
FILE_SCHEMES = ("sqlite", "duckdb", "files", "twin")

MASK = "***"
REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")

# Names of query parts that hold a secret in the URLs of databases, web hooks and object stores.
_SECRET_NAME = re.compile(
    r"pass(?!file)|pwd|secret|token|credential|api[-_]?key|access[-_]?key|signature|^sig$|^key$|^code$|^auth$",
    re.IGNORECASE,
)
_QUERY_PART = re.compile(r"(?P<name>[^&;=?#]*)=(?P<value>[^&;#]*)")
# A host, perhaps a port and a path, and a query that begins with a name: an `@` in its values is no userinfo's end.
_PLAIN_QUERY = re.compile(r"[^:/?#]*(:\d{1,5})?(/[^?]*)?\?\w+=")
_QUERY_AFTER_USERINFO = re.compile(r"[^?#]*@[^?#]*\?\w+=")
_SCHEME = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9]*)(?P<driver>\+[A-Za-z0-9_]+)?:")


class Span(Struct, frozen=True):
    """A piece of a text, by its first and last index, the latter not included."""

    start: int
    end: int


def scheme_of(url: str) -> str:
    """The scheme in lower case without a driver; empty if there is none."""
    match = _SCHEME.match(url)
    return match["scheme"].lower() if match else ""


def secret_spans(url: str) -> list[Span]:
    """Where a URL holds secrets: the password of its userinfo and the values of secret query parts.

    A password may itself hold `@`, `/` or `?` by mistake, so the userinfo is taken to reach to the last `@`: too much
    is masked rather than too little. Oracle's own `user/password@host` counts, too.
    """
    scheme_end = url.find("://")
    if scheme_end < 0 or scheme_of(url) in FILE_SCHEMES:
        return list(_secret_query_parts(url, 0))
    start = scheme_end + 3
    query = url.find("?", start)
    at = url.rfind("@", start)
    if 0 <= query < at and (_PLAIN_QUERY.match(url, start) or _QUERY_AFTER_USERINFO.match(url, start)):
        at = url.rfind("@", start, query)
    spans = []
    if at >= 0:
        first = min((index for sign in ":/" if (index := url.find(sign, start, at)) >= 0), default=-1)
        if first >= 0:
            spans.append(Span(first + 1, at))
        query = url.find("?", at)
    if query >= 0:
        spans += _secret_query_parts(url, query)
    return spans


def _secret_query_parts(url: str, start: int) -> Iterator[Span]:
    query = url.find("?", start)
    if query < 0:
        return
    for match in _QUERY_PART.finditer(url, query + 1):
        if _SECRET_NAME.search(match["name"]) and match["value"]:
            yield Span(*match.span("value"))


def has_userinfo(url: str) -> bool:
    """True if the URL itself names who signs in, or cannot be taken apart."""
    parts = _split(url)
    return parts is None or parts.username is not None


def is_external(url: str) -> bool:
    """True if an Oracle URL leaves the sign-in to a wallet."""
    return any(
        match["name"].lower() == "external" and match["value"].lower() in ("true", "yes")
        for match in _QUERY_PART.finditer(url, url.find("?") + 1)
        if "?" in url
    )


def masked_url(url: str) -> str:
    """The URL as it may be shown and stored: every secret part as `***`."""
    for span in sorted(secret_spans(url), key=lambda one: one.start, reverse=True):
        url = url[: span.start] + MASK + url[span.end :]
    return url


def holds_literal_secret(url: str) -> bool:
    """True if a secret part of the URL is written out instead of being `${ENV}`."""
    return any(REFERENCE.sub("", url[span.start : span.end]) for span in secret_spans(url))


def file_path(url: str) -> str | None:
    """The path in a URL of a file or folder as it is written; None for servers and for a URL without a path."""
    scheme = scheme_of(url)
    if scheme in ("sqlite", "duckdb"):
        prefix = f"{scheme}:///"
        return url[len(prefix) :].split("?", 1)[0] or None if url.lower().startswith(prefix) else None
    if scheme in ("files", "twin"):
        return url[len(scheme) + 1 :] or None
    return None


def absolute_path(path: str, folder: Path) -> Path:
    """The path made absolute, counted from `folder`; `~` is the home folder where there is one."""
    try:
        return (folder / Path(path).expanduser()).resolve()
    except RuntimeError:
        # `~name` of a user that this machine does not know is a folder of that name.
        return (folder / path).resolve()


def absolute_url(url: str, folder: Path) -> str:
    """The URL with the path made absolute, counted from `folder`; a server's URL stays as it is."""
    path = file_path(url)
    if path is None:
        return url
    scheme = scheme_of(url)
    absolute = str(absolute_path(path, folder))
    if scheme in ("files", "twin"):
        return f"{scheme}:{absolute}"
    query = url.partition("?")[2]
    return f"{scheme}:///{absolute}" + (f"?{query}" if query else "")


def signed_url(url: str, *, user: str | None, password: str | None) -> str:
    """The URL of a server with the user and the password in it; those that are given take the place of its own."""
    if user is None and password is None:
        return url
    scheme, _, rest = url.partition("://")
    end = next((at for at, sign in enumerate(rest) if sign in "/?#"), len(rest))
    own, _, host = rest[:end].rpartition("@")
    own_user, _, own_password = own.partition(":")
    name = own_user if user is None else quote(user, safe="")
    word = own_password if password is None else quote(password, safe="")
    return f"{scheme}://{name}{f':{word}' if word else ''}@{host}{rest[end:]}"


def database_fault(url: str, schemes: tuple[str, ...]) -> tuple[str, str] | None:
    """What is wrong with the URL of a source or audit database, and what to write; None if its form is good.

    Never repeats the URL, which may hold a password.
    """
    match = _SCHEME.match(url)
    forms = ", ".join(f"`{form}`" for form in (_FORMS[scheme] for scheme in schemes))
    if match is None:
        return "this is no URL", f"write one of {forms}"
    scheme = match["scheme"].lower()
    if scheme not in schemes:
        return f"there is no `{scheme}:` here", f"write one of {forms}"
    if match["driver"]:
        return "the driver is not for the plan to choose", f"write `{scheme}://`, without `{match['driver']}`"
    if scheme in SERVER_SCHEMES:
        return _server_fault(url, scheme)
    path = file_path(url)
    if path is None:
        return "the URL names no file", f"write `{_FORMS[scheme]}`, or `{_ABSOLUTE_FORMS[scheme]}`"
    if path == ":memory:":
        return "a database in memory ends with the process", f"write `{_FORMS[scheme]}`"
    return _path_fault(path)


def target_fault(url: str) -> tuple[str, str] | None:
    """What is wrong with a target's URL, and what to write; None if its form is good."""
    form = "write `https://NAME.my.salesforce.com` or `twin:./org.duckdb`"
    if REFERENCE.search(url):
        return "`${ENV}` is read in secret fields only", form
    scheme = scheme_of(url)
    if scheme == "twin":
        path = file_path(url)
        return ("the URL names no file", "write `twin:./org.duckdb`") if path is None else _path_fault(path)
    if scheme not in TARGET_SCHEMES:
        return "the target is no org and no twin", form
    parts = _split(url)
    if parts is None or not parts.hostname:
        return "the URL names no host", form
    if parts.username is not None or parts.password is not None:
        return "credentials do not belong into the target's URL", "use `auth`"
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        return "the URL goes on after the host", "leave out what stands after the host name"
    if scheme == "http" and not _is_this_machine(parts.hostname):
        return "`http:` would send the token in the open", "write `https://`; `http:` is for a twin on this machine"
    return None


def is_loopback(url: str) -> bool:
    """True if the URL's host is this machine."""
    parts = _split(url)
    return parts is not None and _is_this_machine(parts.hostname or "")


def _is_this_machine(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _server_fault(url: str, scheme: str) -> tuple[str, str] | None:
    parts = _split(url)
    if parts is None or not url.lower().startswith(f"{scheme}://") or not parts.hostname:
        return "the URL names no host", f"write `{_FORMS[scheme]}`"
    return None


def _path_fault(path: str) -> tuple[str, str] | None:
    if any(ord(letter) < 32 for letter in path):
        return "the path holds a control character", "write the path in one line"
    if REFERENCE.search(path):
        return "`${ENV}` cannot stand inside a path", "write the path out, or take the whole URL from `${ENV}`"
    return None


class _Parts:
    """The pieces of a URL, `hostname` and `port` read once so that a bad port is found."""

    __slots__ = ("fragment", "hostname", "password", "path", "query", "username")

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.hostname = parts.hostname
        self.username, self.password = parts.username, parts.password
        self.path, self.query, self.fragment = parts.path, parts.query, parts.fragment
        _ = parts.port


def _split(url: str) -> _Parts | None:
    try:
        return _Parts(url)
    except ValueError:
        return None


_ABSOLUTE_FORMS = {
    "sqlite": "sqlite:////absolute/path",
    "duckdb": "duckdb:////absolute/path",
    "files": "files:/absolute/path",
}
_FORMS = {
    "oracle": "oracle://host/service",
    "postgresql": "postgresql://host/db",
    "sqlite": "sqlite:///path",
    "duckdb": "duckdb:///path",
    "files": "files:./folder",
}
