"""Sessions and refresh tokens of the twin, kept in the org's own file as hashes.

A session ends when it was not used for its lifetime; each use extends it. A restarted twin goes on with them.
"""

from __future__ import annotations

import hashlib
import secrets
import string
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final

import duckdb

SESSION_LIFETIME: Final = timedelta(hours=2)
TOKEN_ALPHABET: Final = string.ascii_letters + string.digits + "._"
SESSIONS_KEPT_MAX: Final = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A signed-in user. Also describes the owner of a refresh token."""

    user_id: str
    username: str
    client_id: str
    last_seen: datetime


class SessionStore:
    """Opens, finds and ends sessions.

    Args:
        cursor: A DuckDB connection of the org; used under this object's lock only.
        org_id: Its first 15 characters begin every token, as in Salesforce.
    """

    def __init__(
        self,
        cursor: duckdb.DuckDBPyConnection,
        *,
        org_id: str,
        now: Callable[[], datetime],
        lifetime: timedelta = SESSION_LIFETIME,
    ) -> None:
        self._cursor = cursor
        self._org_id = org_id[:15]
        self._now = now
        self._lifetime = lifetime
        # Writing each use to the file would cost more than the use; a crash may shorten a session by this much.
        self._save_every = lifetime / 20
        self._lock = threading.Lock()
        self._sessions: dict[str, Session] = {}
        self._saved: dict[str, datetime] = {}
        self._create_tables()
        self._load()

    @property
    def lifetime(self) -> timedelta:
        """How long a session lives without being used."""
        return self._lifetime

    def open(self, *, user_id: str, username: str, client_id: str) -> str:
        """Start a session and return its token."""
        token = self._new_token("AQ", 96)
        digest = _digest(token)
        session = Session(user_id=user_id, username=username, client_id=client_id, last_seen=self._now())
        with self._lock:
            self._drop_expired()
            self._sessions[digest] = session
            self._saved[digest] = session.last_seen
            self._cursor.execute(
                "INSERT INTO twin_auth.session VALUES (?, ?, ?, ?, ?)",
                [digest, user_id, username, client_id, _stored(session.last_seen)],
            )
        return token

    def use(self, token: str) -> Session | None:
        """The session of a token, extended by this use; None if it is unknown or has expired."""
        digest = _digest(token)
        with self._lock:
            session = self._sessions.get(digest)
            if session is None:
                return None
            now = self._now()
            if now - session.last_seen >= self._lifetime:
                self._forget(digest)
                return None
            session = replace(session, last_seen=now)
            self._sessions[digest] = session
            if now - self._saved[digest] >= self._save_every:
                self._save(digest, now)
            return session

    def revoke(self, token: str) -> bool:
        """End the session, or the refresh token, of this text. False if there was none."""
        digest = _digest(token)
        with self._lock:
            if digest in self._sessions:
                self._forget(digest)
                return True
            gone = self._cursor.execute(
                "DELETE FROM twin_auth.refresh_token WHERE digest = ? RETURNING digest", [digest]
            ).fetchall()
            return bool(gone)

    def end_all(self) -> int:
        """End every session, as an administrator would; returns how many."""
        with self._lock:
            count = len(self._sessions)
            for digest in list(self._sessions):
                self._forget(digest)
            return count

    def issue_refresh(self, *, user_id: str, username: str, client_id: str) -> str:
        token = "5Aep861" + "".join(secrets.choice(TOKEN_ALPHABET) for _ in range(80))
        with self._lock:
            self._cursor.execute(
                "INSERT INTO twin_auth.refresh_token VALUES (?, ?, ?, ?)",
                [_digest(token), user_id, username, client_id],
            )
        return token

    def find_refresh(self, token: str) -> Session | None:
        """Who the refresh token stands for, or None."""
        with self._lock:
            row = self._cursor.execute(
                "SELECT user_id, username, client_id FROM twin_auth.refresh_token WHERE digest = ?", [_digest(token)]
            ).fetchone()
        if row is None:
            return None
        return Session(user_id=row[0], username=row[1], client_id=row[2], last_seen=self._now())

    def setting(self, name: str) -> str | None:
        """A value that sign-in keeps in the org's file."""
        with self._lock:
            row = self._cursor.execute("SELECT value FROM twin_auth.setting WHERE name = ?", [name]).fetchone()
        return None if row is None else str(row[0])

    def keep_setting(self, name: str, value: str) -> None:
        with self._lock:
            self._cursor.execute("INSERT OR REPLACE INTO twin_auth.setting VALUES (?, ?)", [name, value])

    @property
    def count(self) -> int:
        """How many sessions are alive."""
        with self._lock:
            self._drop_expired()
            return len(self._sessions)

    def close(self) -> None:
        """Save when each session was last used, and let go of the org's file."""
        with self._lock:
            self._drop_expired()
            for digest, session in self._sessions.items():
                self._save(digest, session.last_seen)
            self._cursor.close()

    def _save(self, digest: str, last_seen: datetime) -> None:
        if last_seen > self._saved[digest]:
            self._saved[digest] = last_seen
            self._cursor.execute(
                "UPDATE twin_auth.session SET last_seen = ? WHERE digest = ?", [_stored(last_seen), digest]
            )

    def _new_token(self, start: str, length: int) -> str:
        tail = "".join(secrets.choice(TOKEN_ALPHABET) for _ in range(length - len(start)))
        return f"{self._org_id}!{start}{tail}"

    def _create_tables(self) -> None:
        self._cursor.execute("CREATE SCHEMA IF NOT EXISTS twin_auth")
        self._cursor.execute(
            "CREATE TABLE IF NOT EXISTS twin_auth.session"
            " (digest VARCHAR PRIMARY KEY, user_id VARCHAR, username VARCHAR, client_id VARCHAR, last_seen TIMESTAMP)"
        )
        self._cursor.execute(
            "CREATE TABLE IF NOT EXISTS twin_auth.refresh_token"
            " (digest VARCHAR PRIMARY KEY, user_id VARCHAR, username VARCHAR, client_id VARCHAR)"
        )
        self._cursor.execute("CREATE TABLE IF NOT EXISTS twin_auth.setting (name VARCHAR PRIMARY KEY, value VARCHAR)")

    def _load(self) -> None:
        rows = self._cursor.execute(
            "SELECT digest, user_id, username, client_id, last_seen FROM twin_auth.session"
        ).fetchall()
        for digest, user_id, username, client_id, last_seen in rows:
            seen = last_seen.replace(tzinfo=UTC)
            self._sessions[digest] = Session(user_id=user_id, username=username, client_id=client_id, last_seen=seen)
            self._saved[digest] = seen
        self._drop_expired()

    def _drop_expired(self) -> None:
        """Forget what has expired and, beyond the cap, the sessions that were used longest ago."""
        limit = self._now() - self._lifetime
        for digest in [key for key, session in self._sessions.items() if session.last_seen <= limit]:
            self._forget(digest)
        surplus = len(self._sessions) - SESSIONS_KEPT_MAX
        if surplus > 0:
            oldest = sorted(self._sessions, key=lambda key: self._sessions[key].last_seen)
            for digest in oldest[:surplus]:
                self._forget(digest)

    def _forget(self, digest: str) -> None:
        del self._sessions[digest]
        del self._saved[digest]
        self._cursor.execute("DELETE FROM twin_auth.session WHERE digest = ?", [digest])


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _stored(at: datetime) -> datetime:
    """DuckDB's TIMESTAMP has no zone; the twin's are UTC."""
    return at.astimezone(UTC).replace(tzinfo=None)
