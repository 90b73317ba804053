"""Secrets of a plan: `${ENV}` and `file:PATH` are resolved, anything written out is refused without being repeated.

Reads:   environment variables and small files that the plan names, in secret fields only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from msgspec import Struct, field

from forcelift.plan.markers import Refers, Secret, SecretUrl
from forcelift.plan.urls import MASK, REFERENCE, holds_literal_secret, masked_url

SECRET_BYTES_MAX = 64 * 1024
# A mode in which group or others can read or write a secret's file.
OPEN_TO_OTHERS = 0o077

# Keys of the open `notify` part whose values are secret, and those that hold URLs.
_SECRET_KEY = re.compile(r"password|secret|token|api_?key|routing_?key|integration_?key|auth_?key", re.IGNORECASE)
_URL_KEY = re.compile(r"url|webhook|hook|dsn", re.IGNORECASE)
# Incoming web hooks carry their secret as a long piece of the path (Slack's have 24 letters and digits).
_TOKEN_PIECE = re.compile(r"/(?=[^/?#]*[A-Za-z0-9_-]{16})[^/?#]+")
_USERINFO = re.compile(r"(?P<head>://[^\s:/@'\"]*[:/])(?P<secret>[^\s@'\"]+)(?=@)")


class Fault(Struct, frozen=True):
    """Why a value cannot be used; never holds the value."""

    message: str
    hint: str | None = None


class SecretReader(Struct):
    """Resolves references.

    Args:
        folder: Where relative paths of `file:PATH` start.
        env: Environment variables.
    """

    folder: Path
    env: Mapping[str, str]
    faults: list[Fault] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def read(self, text: str, marks: tuple[Any, ...], name: str) -> str:
        """The value that `text` stands for in a field with those marks; faults and warnings are added to the lists.

        Args:
            name: The key, to say in a hint what to write.
        """
        if any(isinstance(mark, SecretUrl) for mark in marks):
            return self.read_url(text, name)
        is_secret = any(isinstance(mark, Secret) for mark in marks)
        if text.startswith("file:"):
            return self._file(text.removeprefix("file:"))
        if is_secret and (REFERENCE.sub("", text) or not text):
            self.faults.append(literal_fault(name))
            return MASK
        if not is_secret and not any(isinstance(mark, Refers) for mark in marks):
            return text
        if not is_secret:
            self.faults += [_shown_fault(one, name) for one in REFERENCE.findall(text) if _SECRET_KEY.search(one)]
        return MASK if self.faults else REFERENCE.sub(lambda match: self._variable(match[1]), text)

    def read_url(self, text: str, name: str) -> str:
        """A URL with its references resolved; those in its secret parts are escaped as URLs want it."""
        if text.startswith("file:"):
            return self._file(text.removeprefix("file:"))
        if holds_literal_secret(text):
            self.faults.append(literal_fault(name, in_url=True))
            return masked_url(text)
        if REFERENCE.fullmatch(text):
            return REFERENCE.sub(lambda match: self._variable(match[1]), text)
        at, query = text.rfind("@"), text.find("?")

        def resolved(match: re.Match[str]) -> str:
            value = self._variable(match[1])
            is_part = match.start() < at or 0 <= query < match.start()
            return quote(value, safe="") if is_part else value

        return REFERENCE.sub(resolved, text)

    def _variable(self, name: str) -> str:
        value = self.env.get(name)
        if value is None:
            self.faults.append(Fault(f"the environment variable `{name}` is not set", f"set `{name}` and try again"))
            return MASK
        if not value:
            self.faults.append(Fault(f"the environment variable `{name}` is empty", f"set `{name}` and try again"))
            return MASK
        return value

    def _file(self, written: str) -> str:
        """The content of a secret's file, without the line end that editors leave."""
        if not written or "\0" in written:
            self.faults.append(Fault("`file:` names no file", "write `file:PATH`"))
            return MASK
        try:
            path = self.folder / Path(written).expanduser()
            mode = path.stat().st_mode
            with path.open("rb") as file:
                content = file.read(SECRET_BYTES_MAX + 1)
            value = content.decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError:
            self.faults.append(Fault(f"the secret's file `{written}` is not UTF-8", None))
            return MASK
        except (OSError, RuntimeError) as error:
            reason = getattr(error, "strerror", None) or "its folder is unknown"
            hint = "relative paths start at the plan file's folder"
            self.faults.append(Fault(f"the secret's file `{written}` cannot be read: {reason}", hint))
            return MASK
        if len(content) > SECRET_BYTES_MAX:
            self.faults.append(Fault(f"the secret's file `{written}` is larger than {SECRET_BYTES_MAX // 1024} KiB"))
        elif not value:
            self.faults.append(Fault(f"the secret's file `{written}` is empty"))
        if mode & OPEN_TO_OTHERS:
            self.warnings.append(f"others can read the secret's file `{written}`; run `chmod 600` on it")
        return value or MASK


def notify_marks(path: tuple[str | int, ...], text: str) -> tuple[Any, ...]:
    """What a text in the open `notify` part is: a secret, a URL with secrets, or just a text."""
    key = next((part for part in reversed(path) if isinstance(part, str)), "")
    if _SECRET_KEY.search(key):
        return (Secret(),)
    return (SecretUrl(),) if _URL_KEY.search(key) or "://" in text else ()


def holds_token_piece(url: str) -> bool:
    """True if a web hook's URL carries a long piece that can only be its secret, written out."""
    _, _, rest = url.partition("://")
    return bool(_TOKEN_PIECE.search(REFERENCE.sub("", rest)))


def literal_fault(name: str, *, in_url: bool = False) -> Fault:
    """The refusal of a secret that is written out, with what to write instead."""
    variable = re.sub(r"[^A-Z0-9]+", "_", name.upper()).strip("_") or "SECRET"
    if in_url:
        return Fault(
            "a secret is written out inside the URL",
            "put `${DB_PASSWORD}` in its place and set that environment variable",
        )
    return Fault("a secret is written out", f"write `${{{variable}}}` or `file:PATH`")


def _shown_fault(variable: str, name: str) -> Fault:
    """The refusal of a variable that by its name is a secret, where its value would be shown and kept."""
    return Fault(
        f"`${{{variable}}}` is a secret by its name, and the value of `{name}` is shown",
        f"name the variable of `{name}`; if it is no secret, give the variable another name",
    )


def masked_text(text: str) -> str:
    """A plan file's text without passwords in URLs, also in comments; references stay."""

    def masked(match: re.Match[str]) -> str:
        return match[0] if not REFERENCE.sub("", match["secret"]) else match["head"] + MASK

    return _USERINFO.sub(masked, text)
