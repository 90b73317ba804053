"""`forcelift twin snapshot`: take the shape of the plan's org, from which `twin serve` makes a twin."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from forcelift.cli.options import json_option, plan_option
from forcelift.errors import StateConflict, StorageError, TargetError, UsageError

if TYPE_CHECKING:
    from forcelift.plan import LoadedPlan


@click.command()
@plan_option
@click.option(
    "--out",
    "out_file",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("org-schema.json"),
    show_default=True,
    help="The schema file to write; an existing one is not replaced without --overwrite",
)
@click.option("--overwrite", is_flag=True, help="Replace an existing file")
@click.option(
    "--object", "objects", multiple=True, metavar="NAME", help="Take this object; those of the plan if left out"
)
@click.option("--no-lookups", is_flag=True, help="Leave out what the objects' lookups point at")
@json_option
def snapshot(
    plan_file: Path, out_file: Path, overwrite: bool, objects: tuple[str, ...], no_lookups: bool, as_json: bool
) -> None:
    """Take the shape of the plan's org, without its records, as the schema of a twin

    Reads describes, automations, limits and record counts; changes nothing in the org. Example:

      forcelift twin snapshot --out org-schema.json && forcelift twin serve --schema org-schema.json
    """
    from forcelift.cli.output import notes, print_json
    from forcelift.opening.assembly import open_org
    from forcelift.plan import load_plan
    from forcelift.protocols.clock import SystemClock
    from forcelift.salesforce import SalesforceOrg
    from forcelift.salesforce.snapshot import take_snapshot

    if out_file.exists() and not overwrite:
        raise StateConflict(
            f"`{out_file}` exists", state="it was not changed", hint="name another file with --out, or give --overwrite"
        )
    loaded = load_plan(plan_file)
    wanted = objects or objects_of(loaded)
    if not wanted:
        raise UsageError("the plan names no objects", hint="name them: `--object Account --object Contact`")
    console = notes()
    with open_org(loaded, clock=SystemClock()) as org:
        assert isinstance(org, SalesforceOrg)  # the only adapter of orgs
        document = take_snapshot(
            org, wanted, follow_lookups=not no_lookups, progress=lambda what: console.print(f"reading {what}")
        )
    summary = check_snapshot(document)
    write_document(out_file, document)
    if as_json:
        print_json({"file": str(out_file), **summary, "notes": document["notes"]})
        return
    for note in document["notes"]:
        console.print(f"note: {note}")
    console.print(
        f"{out_file}: {summary['objects']} objects, {summary['fields']} fields, {summary['automations']} automations"
    )


def objects_of(loaded: LoadedPlan) -> tuple[str, ...]:
    return tuple(dict.fromkeys(table.object for table in loaded.plan.tables))


def check_snapshot(document: dict[str, Any]) -> dict[str, int]:
    """Prove that a twin can be made of the document; tell what is in it.

    A note is added to it for each rule with a formula that the twin cannot read.

    Raises:
        TargetError: No twin can be made of it.
    """
    from forcelift.twin.automation_checks import unread_rules
    from forcelift.twin.errors import SchemaError
    from forcelift.twin.schema_file import schema_from_dict

    try:
        schema = schema_from_dict(document)
    except SchemaError as error:
        raise TargetError(
            f"no twin can be made of what the org tells: {error}", state="no file was written",
            hint="leave the object out with `--object` and `--no-lookups`, and report it",
        ) from error  # fmt: skip
    document["notes"] += [rule.note for rule in unread_rules(schema.automations, schema)]
    return {
        "objects": len(document["describes"]),
        "fields": sum(len(entry["fields"]) for entry in document["describes"]),
        "automations": sum(1 for _ in schema.automations.each()),
    }


def write_document(path: Path, document: dict[str, Any]) -> None:
    """Write the file whole or not at all. Raises StorageError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(document, file, ensure_ascii=False, indent=1)
                file.write("\n")
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise StorageError(f"`{path}` cannot be written: {error.strerror}", state="no file was written") from error
