"""`forcelift config show`: each setting of the plan with where it comes from; secrets are never shown."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
from msgspec import Struct

from forcelift.cli.options import json_option, plan_option

if TYPE_CHECKING:
    from forcelift.plan import LoadedPlan

_REFERENCE: Final = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_WIDTH_MAX: Final = 70


class Setting(Struct, frozen=True, kw_only=True):
    """One value of the plan. `origin` is `file`, `env` or `default`; `place` says which line or variable."""

    path: str
    value: Any
    origin: str
    place: str


@click.group()
def config() -> None:
    """Look at the settings"""


@config.command()
@plan_option
@click.option("--all", "show_all", is_flag=True, help="Also show the defaults of every column's rules")
@json_option
@click.pass_context
def show(ctx: click.Context, plan_file: Path, show_all: bool, as_json: bool) -> None:
    """Show each value of the plan and where it comes from

    Secrets are shown as ***. Example:

      forcelift config show --plan forcelift.yaml
    """
    from forcelift.cli.output import data, notes, print_json, table_lines
    from forcelift.plan import load_plan

    loaded = load_plan(plan_file)
    source = ctx.get_parameter_source("plan_file")
    origins = {"COMMANDLINE": "--plan", "ENVIRONMENT": "FORCELIFT_PLAN"}
    plan_origin = origins.get(source.name if source is not None else "", "default")
    settings = [setting for setting in settings_of(loaded) if show_all or not _is_rule_default(setting)]
    if as_json:
        document = {
            "plan": str(loaded.path),
            "plan_origin": plan_origin,
            "settings": [
                {"path": one.path, "value": one.value, "origin": one.origin, "place": one.place} for one in settings
            ],
            "warnings": [str(warning) for warning in loaded.warnings],
        }
        print_json(document)
        return
    console = data()
    console.print(f"plan: {loaded.path} ({plan_origin})")
    rows = [(one.path, _shown(one.value), one.place or one.origin) for one in settings]
    for line in table_lines(("setting", "value", "from"), rows, left=(0, 1, 2)):
        console.print(line)
    for warning in loaded.warnings:
        notes().print(f"warning: {warning}", style="yellow")


def settings_of(loaded: LoadedPlan) -> Iterator[Setting]:
    """All values of the plan, in the order of the models."""
    from forcelift.plan import plan_document

    lines = loaded.text.splitlines()
    for path, value in _leaves(plan_document(loaded.plan), ""):
        position = _position(loaded, path)
        if position is None:
            yield Setting(path=path, value=value, origin="default", place="")
            continue
        line = position[0]
        rest = lines[line - 1][position[1] - 1 :] if line <= len(lines) else ""
        names = _REFERENCE.findall(rest.split(",")[0]) if _may_refer(path) else []
        if names:
            variables = ", ".join(f"${{{name}}}" for name in names)
            yield Setting(path=path, value=value, origin="env", place=f"line {line}, {variables}")
        else:
            yield Setting(path=path, value=value, origin="file", place=f"line {line}")


def _may_refer(path: str) -> bool:
    """Whether a value there may be an environment variable: names and secrets of source, target, audit, notify."""
    return path.startswith(("source.", "target.auth.", "audit.", "notify."))


def _position(loaded: LoadedPlan, path: str) -> tuple[int, int] | None:
    if path in loaded.positions:
        return loaded.positions[path]
    parent, _, name = path.rpartition(".")
    # `COLUMN: Field__c` is short for `COLUMN: {field: Field__c}`.
    short = name == "field" and parent in loaded.positions
    if short and not any(other.startswith(f"{parent}.") for other in loaded.positions):
        return loaded.positions[parent]
    return None


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for name, inner in value.items():
            yield from _leaves(inner, f"{path}.{name}" if path else str(name))
    elif isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):
        for number, item in enumerate(value):
            name = item.get("table") or item.get("name") or str(number)
            yield from _leaves(item, f"{path}.{name}")
    else:
        yield path, value


def _is_rule_default(setting: Setting) -> bool:
    """Each column has some twenty rules, most of them at their default."""
    return setting.origin == "default" and ".fields." in setting.path


def _shown(value: Any) -> str:
    if value is None or value == {} or value == []:
        return "-"
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    text = " ".join(text.split())
    return text if len(text) <= _WIDTH_MAX else f"{text[: _WIDTH_MAX - 3]}..."
