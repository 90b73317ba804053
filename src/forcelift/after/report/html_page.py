"""The report as one HTML page: no script, nothing fetched, so that it can be mailed and opened anywhere. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from forcelift.after.report.content import Alarm, Content, Signed, alarms, details_of
from forcelift.after.report.figures import ReportStatus, TableFigures
from forcelift.after.report.html_charts import codes_chart, levels_chart, quota_chart, steps_chart, time_charts
from forcelift.after.report.html_plots import mark, stacked
from forcelift.after.report.html_style import STYLE
from forcelift.after.report.told import (
    CHECK_KINDS,
    CHECKS_SHOWN,
    KINDS,
    cause,
    check_word,
    days,
    fates,
    headline,
    metrics,
    rate,
    remarks,
    resolution,
    tiles,
    value_text,
    verdict,
)
from forcelift.after.report.words import Language, Words
from forcelift.pages import document, with_code


def html_page(content: Content, words: Words | None = None) -> str:
    """The page; all values in it are escaped."""
    words = words or Words()
    body = [
        _alarms(alarms(content, words)),
        _top(content, words),
        _tiles(content, words),
        *(_section(key, inner, words) for key, inner in _sections(content, words)),
        _footer(content, words),
    ]
    title = f"{words('title')}: {content.figures.batch.project}"
    return document(title, style=STYLE, body=body, language=words.language)


def _sections(content: Content, words: Words) -> Iterator[tuple[str, str]]:
    yield "statistics", _statistics(content, words)
    yield "reconciliation", _reconciliation(content, words)
    yield "issues", _issues(content, words)
    yield "performance", _performance(content, words)
    yield "sign_off", _sign_off(content, words)
    if content.figures.rollbacks:
        yield "rollbacks", _rollbacks(content, words)
    if content.figures.checks:
        yield "in_full", _in_full(content, words)


def _section(key: str, inner: str, words: Words) -> str:
    return f'<section aria-labelledby="{key}"><h2 id="{key}">{escape(words(key))}</h2>{inner}</section>'


def _alarms(found: Sequence[Alarm]) -> str:
    if not found:
        return ""
    shown = "".join(f'<div class="alarm"><b>{escape(one.what)}</b>{with_code(one.do)}</div>' for one in found)
    return f'<div class="alarms" role="alert">{shown}</div>'


def _top(content: Content, words: Words) -> str:
    report = content.figures
    kind = KINDS[report.status]
    about = [(words("date"), days(report, words)), (words("batch"), report.batch.batch_id)]
    shown = "".join(f"<span>{escape(name)} <b>{escape(value)}</b></span>" for name, value in about)
    notes = "".join(f'<p class="note">{escape(one)}</p>' for one in remarks(content, words))
    return (
        f'<header class="top {kind}"><p class="eyebrow">{escape(words("title"))} · {escape(words("summary"))}</p>'
        f'<div class="title"><h1>{escape(report.batch.project)}</h1>'
        f'<span class="pill {kind}">{mark(kind)}{escape(verdict(report.status, words))}</span></div>'
        f'<p class="headline">{escape(headline(content, words))}</p><p class="about">{shown}</p></header>'
        + (f'<section aria-label="{escape(words("note"))}">{notes}</section>' if notes else "")
    )


def _tiles(content: Content, words: Words) -> str:
    shown = "".join(
        f'<div class="tile"><b{_long(value)}>{escape(value)}</b>{escape(word)}</div>'
        for value, word in tiles(content, words)
    )
    return f'<div class="tiles">{shown}</div>'


def _long(value: str) -> str:
    return ' class="long"' if len(value) > 13 else ""


def _statistics(content: Content, words: Words) -> str:
    report = content.figures
    heads = [words(key) for key in ("table", "source", "target", "success", "failed", "rate")]
    head = "".join(f"<th{_n(place)} scope=col>{escape(one)}</th>" for place, one in enumerate(heads))
    rows = "".join(_counts(one, words) for one in report.tables)
    total = report.total
    legend = "".join(
        f'<span><svg class="key" viewBox="0 0 10 10" aria-hidden="true"><rect class="{kind}" width="10" height="10"/>'
        f"</svg>{escape(words(key))} <b>{number:,}</b></span>"
        for kind, key, number in fates(total)
        if number
    )
    table = (
        f'<table><thead><tr>{head}<th scope=col aria-label="{escape(words("by_table"))}"></th></tr></thead>'
        f"<tbody>{rows}</tbody><tfoot>{_counts(total, words, is_total=True)}</tfoot></table>"
    )
    return (
        f"{_scroll(table, words('statistics'))}"
        f'<p class="under">{escape(words("split_note", refused=total.refused, rejected=total.rejected))}'
        f" {escape(words('duplicates_note', duplicate=total.duplicate))}</p>"
        f'<div class="legend" style="margin:10px 2px 0">{legend}</div>'
    )


def _counts(one: TableFigures, words: Words, *, is_total: bool = False) -> str:
    name = words("total") if is_total else one.table
    numbers = "".join(f'<td class="n">{number:,}</td>' for number in (one.source, one.target, one.success, one.failed))
    parts = [(kind, float(rows), f"{words(key)}: {rows:,}") for kind, key, rows in fates(one)]
    label = f"{name}: " + ", ".join(title for _, rows, title in parts if rows)
    return (
        f"<tr{' class=total' if is_total else ''}><th scope=row>{escape(name)}</th>{numbers}"
        f'<td class="n">{rate(one)}</td><td class="bar">{stacked(parts, whole=one.source, label=label, thin=True)}</td>'
        "</tr>"
    )


def _reconciliation(content: Content, words: Words) -> str:
    rows = "".join(
        f"<tr><th scope=row>{escape(words(f'level_{one.level}'))}</th><td>{_verdict(one.status, words)}</td>"
        f"<td>{with_code(details_of(one.said, words))}</td></tr>"
        for one in content.figures.reconciled
    )
    head = "".join(f"<th scope=col>{escape(words(key))}</th>" for key in ("check", "status", "details"))
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    return _scroll(table, words("reconciliation")) + levels_chart(content, words)


def _verdict(status: ReportStatus, words: Words) -> str:
    kind = KINDS[status]
    return f'<span class="verdict {kind}">{mark(kind)}{escape(verdict(status, words))}</span>'


def _issues(content: Content, words: Words) -> str:
    report = content.figures
    if not report.issues:
        return f'<p class="card">{escape(words("no_issues"))}</p>'
    shown = []
    for number, issue in enumerate(report.issues, start=1):
        group = issue.group
        # The words themselves hold no sign that means something in HTML.
        line = words(
            "issue_line",
            rows=group.rows,
            table=f"<b>{escape(group.table_name)}</b>",
            code=f"<code>{escape(group.code)}</code>",
        )
        entries = [
            (words("cause"), with_code(cause(issue, words))),
            (words("resolution"), with_code(resolution(issue, words))),
            (words("fixed"), f"{issue.fixed:,}"),
        ]
        body = "".join(f"<dt>{escape(name)}</dt><dd>{value}</dd>" for name, value in entries)
        shown.append(
            f'<article class="card issue"><span class="number" aria-hidden="true">{number}</span>'
            f"<h3>{line}</h3><dl>{body}</dl></article>"
        )
    return codes_chart(content, words) + "".join(shown)


def _performance(content: Content, words: Words) -> str:
    rows = "".join(
        f'<tr><th scope=row>{escape(name)}</th><td class="n">{escape(value)}</td></tr>'
        for name, value in metrics(content, words)
    )
    head = f'<th scope=col>{escape(words("metric"))}</th><th scope=col class="n">{escape(words("value"))}</th>'
    table = _scroll(f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>", words("performance"))
    return table + time_charts(content, words) + steps_chart(content, words) + quota_chart(content, words)


def _sign_off(content: Content, words: Words) -> str:
    heads = "".join(f"<th scope=col>{escape(words(key))}</th>" for key in ("role", "name", "date", "signature"))
    rows = []
    for role in content.roles:
        signed: list[Signed | None] = [*content.of_role(role)]
        for one in signed or [None]:
            if one is None:
                cells = '<td></td><td></td><td class="line"></td>'
            else:
                stale = words("stale_because", why=words.told(one.why_stale or "")) if one.is_stale else ""
                cells = (
                    f"<td>{escape(one.name)}</td><td>{escape(words.moment(one.at))}</td>"
                    f'<td class="line">{escape(one.note or "")} <span class="stale">{escape(stale)}</span></td>'
                )
            rows.append(f"<tr><th scope=row>{escape(role)}</th>{cells}</tr>")
    table = f'<table class="signing"><thead><tr>{heads}</tr></thead><tbody>{"".join(rows)}</tbody></table>'
    return _scroll(table, words("sign_off"))


def _rollbacks(content: Content, words: Words) -> str:
    total = content.figures.total
    heads = "".join(f"<th scope=col>{escape(words(key))}</th>" for key in ("begun", "by", "reason", "ended"))
    rows = "".join(
        f"<tr><td>{escape(words.moment(one.began_at))}</td><td>{escape(one.asked_by)}</td>"
        f"<td>{escape(one.reason)}</td><td>{escape(words.moment(one.ended_at))}</td></tr>"
        for one in content.figures.rollbacks
    )
    note = words("rolled_back_note", rolled_back=total.rolled_back, kept=total.kept)
    table = f"<table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>"
    return f'{_scroll(table, words("rollbacks"))}<p class="under">{escape(note)}</p>'


def _in_full(content: Content, words: Words) -> str:
    keys = ("level", "table", "check", "status", "source", "target", "reason")
    heads = "".join(f"<th{_n(place, (4, 5))} scope=col>{escape(words(key))}</th>" for place, key in enumerate(keys))
    checks = content.figures.checks
    rows = []
    for one in checks[:CHECKS_SHOWN]:
        details, status = one.details, str(one.details["status"])
        kind, word = CHECK_KINDS[status], check_word(status, words)
        sides = "".join(f'<td class="n">{escape(value_text(details.get(side)))}</td>' for side in ("source", "target"))
        rows.append(
            f"<tr><td>{one.level}</td><td>{escape(one.table_name or '-')}</td>"
            f"<td>{escape(words.told(one.check_name))}</td>"
            f'<td><span class="verdict {kind}">{mark(kind)}{escape(word)}</span></td>{sides}'
            f"<td>{with_code(words.told(str(details.get('reason') or '')))}</td></tr>"
        )
    table = f'<table class="full"><thead><tr>{heads}</tr></thead><tbody>{"".join(rows)}</tbody></table>'
    more = len(checks) - CHECKS_SHOWN
    under = f'<p class="under">{with_code(words("and_more", rows=more))}</p>' if more > 0 else ""
    return _scroll(table, words("in_full")) + under


def _footer(content: Content, words: Words) -> str:
    report = content.figures
    lines = [with_code(words("basis_note")), with_code(words("head_note", head=report.head, moment=report.made_at))]
    if words.language is Language.THAI:
        lines.append(escape(words("era_be" if words.buddhist_era else "era_ce")))
    return f"<footer>{''.join(f'<p>{line}</p>' for line in lines)}</footer>"


def _scroll(table: str, label: str) -> str:
    """A table that scrolls by itself where the page is narrow, also by keys."""
    return f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(label)}">{table}</div>'


def _n(place: int, numbers: Sequence[int] = (1, 2, 3, 4, 5)) -> str:
    return ' class="n"' if place in numbers else ""
