"""Where an Oracle database is, and how to sign in: the source's URL as what the driver takes."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

from forcelift.errors import SourceError
from forcelift.source.names import UNTOUCHED

STATEMENT_MINUTES: Final = 30.0
"""How long the server may work on one statement; the user's own figure for a full scan that should not be."""


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value < 1e6:
        raise ValueError("out of range")
    return value


def _yes(text: str) -> bool:
    return {"true": True, "yes": True, "false": False, "no": False}[text.lower()]


# Query parts by who wants them: the driver by that very name, or this adapter.
_DRIVER: dict[str, Callable[[str], Any]] = {
    "config_dir": str,
    "protocol": str,
    "sdu": int,
    "sid": str,
    "wallet_location": str,
    "wallet_password": str,
    "ssl_server_dn_match": _yes,
    "ssl_server_cert_dn": str,
    "https_proxy": str,
    "https_proxy_port": int,
}
_OWN: dict[str, Callable[[str], Any]] = {
    "ca_file": str,
    "call_timeout": _seconds,
    "external": _yes,
    "snapshot": str,
    "statement_minutes": _seconds,
    "task_chunks": _yes,
}


class Address:
    """Where a database is: what the driver is given, and words for messages without the password.

    Args:
        url: `oracle://host:port/service`, `oracle://host?sid=SID`, `oracle://NAME` of tnsnames.ora, or
            `oracle://(DESCRIPTION=...)`, each with query parts.
        user: The user, or `PROXY[USER]`: the first signs in and acts as the second.
        password: Of the user who signs in.
    Attributes:
        shown: The address in messages.
        options: What `oracledb.connect` takes.
        uses_snapshot: Whether all reads see one SCN.
        statement_seconds: How long the server may work on one statement.
        call_seconds: How long it may take to answer one call.
        task_chunks: Whether DBMS_PARALLEL_EXECUTE, which keeps a task in the user's schema, may cut tables.
    """

    def __init__(self, url: str, *, user: str | None, password: str | None) -> None:
        place, query, found_user, found_password = _taken_apart(url)
        given = _converted(query)
        self.user = user or found_user
        password = password or found_password
        self.uses_snapshot = given.pop("snapshot", "scn") != "none"
        self.statement_seconds = 60 * given.pop("statement_minutes", STATEMENT_MINUTES)
        self.call_seconds = min(given.pop("call_timeout", self.statement_seconds), self.statement_seconds)
        self.task_chunks = bool(given.pop("task_chunks", True))
        is_external, ca_file = given.pop("external", False), given.pop("ca_file", None)
        self.shown = place.pop("shown")
        self.options: dict[str, Any] = {**place, **given}
        if is_external:
            # Thin mode knows one such way: the certificate of the wallet says who it is.
            if given.get("protocol", "tcps" if "dsn" in place else "") != "tcps" or password:
                raise _bad_url("`external` takes `protocol=tcps` and a wallet, and no password")
            self.options["externalauth"] = True
        elif not self.user or not password:
            raise SourceError(
                "an Oracle source needs a user and a password, or a wallet and `external=true`",
                state=UNTOUCHED,
                hint="write `source.user` and `source.password: ${ENV}`",
            )
        else:
            self.options |= {"user": self.user, "password": password}
        if wallet := given.get("wallet_location"):
            _check_wallet(wallet, given.get("wallet_password", ""))
        # Without any, OpenSSL would ask for the password of a wallet's key on the terminal, and wait.
        self.options.setdefault("wallet_password", "")
        if ca_file is not None:
            self.options["ssl_context"] = _trusting(ca_file)
        if "sid" in self.options:
            self.options.pop("service_name", None)


def _taken_apart(url: str) -> tuple[dict[str, Any], dict[str, str], str | None, str | None]:
    """Place, query parts, and who is named in the URL."""
    rest = url.partition("://")[2]
    if rest.startswith("("):
        text, end, query_text = rest.rpartition(")")
        if not end or text.count("(") != text.count(")") + 1:
            raise _bad_url("the description has no end")
        if query_text and not query_text.startswith("?"):
            raise _bad_url("something follows the description")
        return {"dsn": unquote(text) + ")", "shown": "oracle://(DESCRIPTION=...)"}, _query(query_text[1:]), None, None
    try:
        parts = urlsplit(url)
        host, port, service = parts.hostname or "", parts.port, unquote(parts.path.lstrip("/"))
        named = (unquote(parts.username) if parts.username else None, unquote(parts.password or "") or None)
    except ValueError:
        raise _bad_url("it cannot be taken apart") from None
    query = _query(parts.query)
    if not host:
        raise _bad_url("it names no host")
    shown = f"oracle://{host}" + (f":{port}" if port else "") + (f"/{service}" if service else "")
    if service or "sid" in query:
        place = {"host": host, "port": port or 1521, "service_name": service or None, "shown": shown}
        return place, query, *named
    return {"dsn": host, "shown": shown}, query, *named


def _query(text: str) -> dict[str, str]:
    try:
        return dict(parse_qsl(text, keep_blank_values=True, strict_parsing=bool(text)))
    except ValueError:
        raise _bad_url("its query cannot be taken apart") from None


def _converted(query: dict[str, str]) -> dict[str, Any]:
    known = _DRIVER | _OWN
    given: dict[str, Any] = {}
    for name, text in query.items():
        if name not in known:
            raise _bad_url(f"it has no part `{name}`")
        try:
            given[name] = known[name](text)
        except (KeyError, ValueError):
            raise _bad_url(f"the value of `{name}` cannot be read") from None
    if given.get("snapshot", "scn") not in ("scn", "none"):
        raise _bad_url("`snapshot` is `scn` or `none`")
    return given


def _trusting(ca_file: str) -> ssl.SSLContext:
    if not Path(ca_file).is_file():
        raise SourceError(
            f"the file of certificates `{ca_file}` does not exist",
            state=UNTOUCHED,
            hint="name by `ca_file` the certificates (PEM) that the server's is signed by",
        )
    try:
        return ssl.create_default_context(cafile=ca_file)
    except ssl.SSLError as error:
        raise SourceError(
            f"the file of certificates `{ca_file}` cannot be read ({error.reason})",
            state=UNTOUCHED,
            hint="it holds certificates in PEM form, one after the other",
        ) from None


def _check_wallet(folder: str, password: str) -> None:
    """See that a wallet can be opened: the driver goes on without what it cannot open."""
    file = Path(folder) / "ewallet.pem"
    try:
        has_key = b"PRIVATE KEY" in file.read_bytes()
        if has_key:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(file, password=password)
    except ssl.SSLError as error:
        reason = "its password is another one" if not error.reason else error.reason
        raise SourceError(
            f"the wallet `{file}` cannot be opened ({reason})",
            state=UNTOUCHED,
            hint="give its password by `wallet_password=${ENV}`",
        ) from None
    except OSError as error:
        raise SourceError(
            f"the wallet `{file}` cannot be read: {error.strerror}",
            state=UNTOUCHED,
            hint="name by `wallet_location` the folder of an `ewallet.pem`; thin mode reads no other form of wallet",
        ) from None


def _bad_url(fault: str) -> SourceError:
    return SourceError(
        f"`source.url` is no address of an Oracle database: {fault}",
        state=UNTOUCHED,
        hint="write `oracle://host:1521/service`, `oracle://host?sid=SID`, `oracle://NAME` for a name in tnsnames.ora, "
        "or `oracle://(DESCRIPTION=...)`; known query parts: " + ", ".join(f"`{part}`" for part in {**_DRIVER, **_OWN}),
    )
