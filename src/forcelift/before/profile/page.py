"""The profile as one HTML page: no script, nothing fetched, so that it can be mailed and opened anywhere."""

from __future__ import annotations

from html import escape
from typing import Final

from forcelift.before.profile.page_style import STYLE
from forcelift.before.profile.plots import bars
from forcelift.before.profile.records import Action, ColumnProfile, Finding, Histogram, Profile, TableProfile
from forcelift.pages import document, shares, with_code

_CLASSES: Final = {
    Action.REJECTED: "bad",
    Action.FAILED: "bad",
    Action.DROPPED: "drop",
    Action.KEPT: "warn",
    Action.WARNED: "warn",
    Action.CHANGED: "done",
    Action.LINKED: "done",
    Action.TOLD: "told",
}


def html_page(profile: Profile) -> str:
    """The page of a profile; all values in it are escaped, personal ones masked."""
    title = f"Profile of {profile.project}"
    body = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="soft"><code>{escape(profile.profile_id)}</code> · data as of'
        f" {profile.as_of:%Y-%m-%d %H:%M} UTC · source {escape(profile.source_kind)} · org"
        f" <code>{escape(profile.org_id)}</code></p>",
        _tiles(profile),
        _sample_note(profile),
        *(_table(table) for table in profile.tables),
        "<footer><p>Values of personal columns are masked. Counts of different values marked ~ are estimates (standard"
        " error 1.6%); keys are counted exactly. Lengths are in characters. Where a plot is of a sample, it says so."
        "</p></footer>",
    ]
    return document(title, style=STYLE, body=body)


def _tiles(profile: Profile) -> str:
    tables = profile.tables
    refused = sum(table.rejected + table.failed for table in tables)
    dropped = sum(table.dropped for table in tables)
    still = len(profile.open_findings)
    tiles = [
        ("", "rows read", sum(table.rows for table in tables)),
        ("", "to send", sum(table.to_send for table in tables)),
        ("bad" if refused else "good", "would be refused", refused),
        ("drop" if dropped else "", "copies dropped", dropped),
        ("bad" if still else "good", "open findings", still),
    ]
    shown = "".join(f'<div class="tile {kind}"><b>{number:,}</b>{escape(word)}</div>' for kind, word, number in tiles)
    return f'<div class="tiles">{shown}</div>'


def _sample_note(profile: Profile) -> str:
    if profile.sample_percent is None:
        return ""
    return f'<p class="note">A sample: {escape(profile.sample_percent)}% of each table was asked for.</p>'


def _table(table: TableProfile) -> str:
    head = (
        f"<section><h2>{escape(table.table)} → {escape(table.object)}</h2>"
        f'<p class="soft">key <code>{escape(", ".join(table.key))}</code>: {table.distinct_keys:,} different,'
        f" {table.null_keys:,} rows without one, {table.repeated_keys:,} repeated"
        f" ({table.copies_equal:,} equal copies, {table.copies_by_rule:,} more by letter case or outer blanks)</p>"
    )
    note = f'<p class="note">{escape(table.sample)}</p>' if table.sample is not None else ""
    fate = shares(
        [
            ("sent", "to send", table.to_send - table.failed),
            ("half", "sent, then failed", table.failed),
            ("drop", "dropped copies", table.dropped),
            ("bad", "rejected", table.rejected),
        ]
    )
    columns = "".join(_column(column, rows=table.rows) for column in table.columns)
    counted = f'<p class="soft">{escape(_sentence(table.counted))}</p>'
    return (
        f'{head}{note}{fate}{_findings(table)}<h3>Columns</h3>{counted}<div class="columns">{columns}</div></section>'
    )


def _findings(table: TableProfile) -> str:
    if not table.findings:
        return "<h3>Findings</h3><p>None.</p>"
    rows = "".join(_finding(finding) for finding in table.findings)
    return (
        '<h3>Findings</h3><div class="scroll"><table><thead><tr><th class="n">rows</th><th>become</th><th>column</th>'
        f"<th>what, and which rows</th><th>what the plan does, and what else could be done</th></tr></thead><tbody>"
        f"{rows}</tbody></table></div>"
    )


def _finding(finding: Finding) -> str:
    kind = _CLASSES[finding.action] if finding.is_open else "done"
    facts = ", ".join(
        f"{name.replace('_', ' ')}: {f'{value:,}' if isinstance(value, int) else value}"
        for name, value in finding.facts
    )
    examples = ", ".join(
        (one.key or "(no key)") + ("" if one.value is None else f" = {one.value!r}") for one in finding.examples
    )
    accepted = finding.accepted
    state = ""
    if accepted is not None:
        word = "Accepted" if finding.is_accepted else f"Has grown since {accepted.rows:,} rows were accepted"
        state = f"{word} by {accepted.by} on {accepted.at:%Y-%m-%d}: {accepted.reason}"
    more = "".join(f'<span class="keys">{escape(text)}</span>' for text in (facts, examples, state) if text)
    return (
        f'<tr><td class="n">{finding.rows:,}</td><td><span class="word {kind}">{escape(finding.action)}</span></td>'
        f'<td class="name"><code>{escape(finding.column)}</code></td>'
        f'<td class="what">{escape(finding.what)}{more}</td>'
        f'<td class="do">{with_code(_sentence(finding.outcome))}'
        f' <span class="keys">{with_code(finding.remedy)}</span></td></tr>'
    )


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _column(column: ColumnProfile, *, rows: int) -> str:
    field = column.field or "not loaded by itself"
    limit = f" ({column.field_length})" if column.field_length else ""
    kind = f"{column.declared} → {field}{': ' + column.field_type if column.field_type else ''}{limit}"
    personal = "personal" if column.is_personal else ""
    shown = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in _figures(column, rows))
    plots = []
    if column.values is not None:
        of = f"values of {column.values.rows:,} sampled rows" if column.values.is_sample else "values"
        plots.append(_plot(column.values, of, column))
    if column.lengths is not None:
        of = "lengths in characters"
        of += f" of {column.lengths.rows:,} sampled rows" if column.lengths.is_sample else ""
        plots.append(_plot(column.lengths, of, column, limit=column.field_length))
    return (
        f'<div class="column"><header><b>{escape(column.name)}</b><span>{personal}</span></header>'
        f'<p class="facts">{escape(kind)}</p><dl>{shown}</dl>{"".join(plots)}{_top(column)}</div>'
    )


def _readable(text: str | None) -> str:
    """A value of blanks or unseen letters would look like none."""
    return repr(text or "") if not text or not text.isprintable() or text != text.strip() else text


def _plot(histogram: Histogram, what: str, column: ColumnProfile, *, limit: int | None = None) -> str:
    plot = bars(histogram, label=f"{column.name}: {what}", limit=limit)
    return f"<figure><figcaption>{what}; highest bar: {_highest(histogram)}</figcaption>{plot}</figure>"


def _highest(histogram: Histogram) -> str:
    rows = max(bar.rows for bar in histogram.bars)
    return f"{rows:,} row" if rows == 1 else f"{rows:,} rows"


def _figures(column: ColumnProfile, rows: int) -> list[tuple[str, str]]:
    share = f" ({column.nulls / rows:.1%})" if rows and column.nulls else ""
    near = "" if column.distinct_is_exact else "~"
    figures = [("nulls", f"{column.nulls:,}{share}")]
    if column.distinct is not None:
        figures.append(("different values", f"{near}{column.distinct:,}"))
    if column.least is not None and column.most is not None:
        figures += [("least", _readable(column.least)), ("most", _readable(column.most))]
    if column.average is not None:
        figures.append(("average", f"{column.average:,.2f}"))
    if column.longest is not None:
        average = "" if column.average_length is None else f", {column.average_length:,.1f} on average"
        figures.append(("length", f"{column.shortest:,} to {column.longest:,}{average}"))
    return figures


def _top(column: ColumnProfile) -> str:
    shown = [one for one in column.top if one.value is not None and column.top_of]
    if not shown or shown[0].rows == 1:
        return ""
    most = shown[0].rows
    lines = "".join(
        f'<li><i style="width:{one.rows / most:.1%}"></i><span>{escape(_readable(one.value))}</span>'
        f"<span>{one.rows / column.top_of:.1%}</span></li>"
        for one in shown
    )
    return f'<ul class="top" aria-label="most frequent values">{lines}</ul>'
