"""`forcelift init`: draft a plan from a source's dictionary and an org's describe."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from forcelift.cli.options import DEFAULT_PLAN, again, json_option
from forcelift.errors import ExitCode


def _pairs(ctx: click.Context, param: click.Parameter, values: Sequence[str]) -> dict[str, str]:
    found = {}
    for value in values:
        name, mark, text = value.partition("=")
        if not mark or not name or not text:
            raise click.BadParameter(f"`{value}` is not KEY=VALUE, such as flow=jwt", ctx, param)
        found[name] = text
    return found


@click.command()
@click.option("--source", "source_url", required=True, metavar="URL", help="Where rows are read from, as `source.url`")
@click.option("--source-user", metavar="NAME", help="As `source.user`; `${ENV}` and `file:PATH` are read")
@click.option("--source-password", metavar="REF", help="As `source.password`: `${ENV}` or `file:PATH`")
@click.option(
    "--source-timezone", metavar="ZONE", help="As `source.timezone`: of times that have no zone, such as Asia/Bangkok"
)
@click.option("--target", "target_url", required=True, metavar="URL", help="The org, as `target.url`")
@click.option(
    "--auth",
    multiple=True,
    callback=_pairs,
    metavar="KEY=VALUE",
    help="A key of `target.auth`, such as flow=jwt; may be given several times",
)
@click.option("--twin-schema", metavar="FILE", help="As `target.twin_schema`, with a `twin:` target")
@click.option("--table", "tables", multiple=True, metavar="TABLE", help="Only this table; may be given several times")
@click.option("--project", metavar="NAME", help="Name of the migration  [default: the file's folder]")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path(DEFAULT_PLAN),
    show_default=True,
    help="The plan file to write; an existing one is never replaced",
)
@json_option
def init(
    source_url: str,
    source_user: str | None,
    source_password: str | None,
    source_timezone: str | None,
    target_url: str,
    auth: dict[str, str],
    twin_schema: str | None,
    tables: tuple[str, ...],
    project: str | None,
    out: Path,
    as_json: bool,
) -> int:
    """Draft a plan from source and org

    Tables are matched to objects and columns to fields, by name, type and a sample of the values, each with its
    confidence and reason; lookups come from foreign keys. What is doubtful is commented out. Example:

      forcelift init --source sqlite:///shop.db --target https://kpc.my.salesforce.com --auth flow=sf_cli

    Ends with 1 if a table or column was left out.
    """
    from forcelift.cli.init_view import draft_document, show_draft
    from forcelift.cli.output import data, notes, print_json
    from forcelift.preflight.drafting import DraftSettings, draft_plan

    source = {
        "url": source_url,
        "user": source_user,
        "password": source_password,
        "timezone": source_timezone,
    }
    target = {"url": target_url, "twin_schema": twin_schema, "auth": auth or None}
    settings = DraftSettings(
        project=project or out.resolve().parent.name or "Migration",
        source={name: value for name, value in source.items() if value is not None},
        target={name: value for name, value in target.items() if value is not None},
        out=out,
        tables=tables,
    )
    report = draft_plan(settings, told=notes().print)
    if as_json:
        print_json(draft_document(report))
    else:
        show_draft(data(), report, again("check", out))
    left_out = any(
        table.doubts or any(one.target is None or not one.match.is_sure for one in table.columns)
        for table in report.tables
    )
    return int(ExitCode.ROWS_REFUSED if left_out else ExitCode.DONE)
