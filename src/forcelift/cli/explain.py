"""`forcelift explain`: what an error means, whether it passes by itself, and what to do."""

from __future__ import annotations

from typing import Any

import click

from forcelift.cli.options import json_option
from forcelift.errors import UsageError


@click.command()
@click.argument("words", nargs=-1, required=True, metavar="CODE-OR-TEXT")
@json_option
def explain(words: tuple[str, ...], as_json: bool) -> None:
    """Explain an error code or message

    Takes a code of Salesforce, a code of Forcelift's own rules, or a whole message. Examples:

    \b
      forcelift explain UNABLE_TO_LOCK_ROW
      forcelift explain REJECTED_MISSING_PARENT
    """
    from forcelift.cli.output import data, print_json

    text = " ".join(words)
    advice = find_advice(text)
    if not advice:
        raise UsageError(
            f"the catalogue holds nothing that fits `{text}`",
            hint="give the code alone, or the whole message; docs/reference/errors.md lists all codes",
        )
    if as_json:
        print_json({"text": text, "advice": advice})
        return
    console = data()
    for number, entry in enumerate(advice):
        if number:
            console.print()
        console.print(entry["title"], style="bold")
        console.print(f"  code           {entry['code']}")
        console.print(f"  meaning        {entry['meaning']}")
        console.print(f"  passes itself  {entry['passes']}")
        console.print(f"  remedy         {entry['remedy']}")
        if entry["org"]:
            console.print(f"  in the org     {entry['org']}")


def find_advice(text: str) -> list[dict[str, Any]]:
    """All advice that fits a code or a text, of our own rules first."""
    from forcelift.rules import rule_remedy
    from forcelift.rules.findings import SENTENCES
    from forcelift.rules.remedies import PREFIX
    from forcelift.salesforce import explain as explain_code

    code = text.strip().upper()
    own = rule_remedy(code)
    if own is not None:
        rule = code.removeprefix(PREFIX).lower()
        return [
            {
                "code": code,
                "title": f"{code}: rejected by the rule `{rule}`",
                "meaning": f"The row was not sent: {SENTENCES[rule]}.",
                "passes": "no",
                "remedy": own,
                "org": "",
            }
        ]
    return [
        {
            "code": entry.code,
            "title": entry.title if entry.title == entry.code else f"{entry.code}: {entry.title}",
            "meaning": entry.meaning,
            "passes": entry.passing.value,
            "remedy": entry.remedy,
            "org": "" if entry.org == "Nothing." else entry.org,
        }
        for entry in explain_code(text)
    ]
