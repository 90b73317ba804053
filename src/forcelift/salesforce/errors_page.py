"""Write the page `docs/reference/errors.md` from the error catalogue, to standard output."""

from __future__ import annotations

import sys

from forcelift.salesforce.catalogue import entries


def to_markdown() -> str:
    """The page `docs/reference/errors.md`."""
    lines = [
        "# Errors of Salesforce, and what to do",
        "",
        "Made from `src/forcelift/salesforce/catalogue.yaml` by `python -m forcelift.salesforce.errors_page`.",
        "",
        "*Passes* says what becomes of a row or call that is sent again unchanged: **yes**, it may be accepted, and "
        "Forcelift sends it again by itself; **later**, once something else has been done; **no**, data or org must "
        "change first. `forcelift explain` finds an entry by its code or by a message.",
        "",
        "| error | passes | meaning | what to do | in the org |",
        "| --- | --- | --- | --- | --- |",
    ]
    for entry in entries():
        advice = entry.advice
        name = f"`{advice.code}`" + (f"<br>{advice.title}" if advice.title != advice.code else "")
        lines.append(f"| {name} | {advice.passing} | {advice.meaning} | {advice.remedy} | {advice.org} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(to_markdown())
