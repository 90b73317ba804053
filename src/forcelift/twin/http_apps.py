"""Read who may sign in from a twin's schema file: `connected_apps:` and `sign_in:`.

They stand in the file only: secrets never reach the org's data file in clear.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from forcelift.twin.auth import ConnectedApp, PasswordPolicy
from forcelift.twin.errors import SchemaError


def load_connected_apps(schema_file: Path) -> tuple[ConnectedApp, ...]:
    """The apps that a schema file registers; none if it has no such list, or is a describe document in JSON.

    `certificate` may be the PEM text itself, or a path relative to the file's folder.

    Raises:
        SchemaError: The file cannot be read, or an entry is wrong. Never repeats a secret.
    """
    document = _read(schema_file)
    entries = document.get("connected_apps") if isinstance(document, dict) else None
    if entries is None:
        return ()
    if not isinstance(entries, list):
        raise SchemaError(["`connected_apps` must be a list"], source=str(schema_file))
    return parse_connected_apps(entries, folder=schema_file.parent, source=str(schema_file))


def load_password_policy(schema_file: Path) -> PasswordPolicy:
    """The `sign_in:` part of a schema file: `soap_login` and `passwords`. Both are off if it has none.

    Raises:
        SchemaError: The file cannot be read, or the part is wrong. Never repeats a password.
    """
    document = _read(schema_file)
    content = document.get("sign_in") if isinstance(document, dict) else None
    try:
        return PasswordPolicy.model_validate(content or {})
    except ValidationError as error:
        places = [(".".join(map(str, item["loc"])), item["msg"]) for item in error.errors()]
        problems = [f"`sign_in`: `{place}`: {text}" for place, text in places]
        raise SchemaError(problems, source=str(schema_file)) from error


def _read(schema_file: Path) -> Any:
    if schema_file.is_dir():
        return None
    try:
        if schema_file.suffix == ".json":
            return json.loads(schema_file.read_bytes())  # describes are megabytes, which YAML would read for minutes
        return YAML(typ="safe").load(schema_file.read_text(encoding="utf-8"))
    except (OSError, ValueError, YAMLError) as error:
        raise SchemaError([f"cannot be read: {type(error).__name__}"], source=str(schema_file)) from error


def parse_connected_apps(entries: Iterable[Any], *, folder: Path, source: str) -> tuple[ConnectedApp, ...]:
    """Check entries of a `connected_apps:` list. Raises SchemaError with all problems."""
    apps: list[ConnectedApp] = []
    problems: list[str] = []
    for number, entry in enumerate(entries, start=1):
        try:
            apps.append(ConnectedApp.model_validate(_with_certificate(entry, folder)))
        except ValidationError as error:
            for item in error.errors():
                place = ".".join(str(part) for part in item["loc"])
                problems.append(f"`connected_apps`, entry {number}: `{place}`: {item['msg']}")
        except OSError as error:
            problems.append(f"`connected_apps`, entry {number}: `certificate`: {error.strerror}: {error.filename}")
    names = [app.client_id for app in apps]
    problems += [
        f"`connected_apps`: `{name}` stands there twice" for name in sorted({n for n in names if names.count(n) > 1})
    ]
    if problems:
        raise SchemaError(problems, source=source)
    return tuple(apps)


def _with_certificate(entry: Any, folder: Path) -> Any:
    if isinstance(entry, dict):
        value = entry.get("certificate")
        if isinstance(value, str) and "-----BEGIN" not in value:
            return {**entry, "certificate": (folder / value).read_text(encoding="ascii")}
    return entry
