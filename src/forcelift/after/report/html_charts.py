"""The report's charts: which figures they show, with their words. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from forcelift.after.report.content import Content
from forcelift.after.report.html_plots import area, stacked
from forcelift.after.report.told import (
    CODES_SHOWN,
    Line,
    bottleneck,
    code_lines,
    level_lines,
    quota_lines,
    seconds_text,
    step_rows,
    times,
)
from forcelift.after.report.words import Words


def time_charts(content: Content, words: Words) -> str:
    """Progress and rate over time."""
    curves, speed = content.curves, content.figures.performance
    if curves is None:
        return f'<p class="under">{escape(words("no_curve"))}</p>'
    edges = times(curves, words)
    duration = words.duration(speed.seconds)
    rows = f"{curves.done[-1]:,.0f}"
    progress = area(
        curves.done, label=words("progress_alt", duration=duration, rows=rows), kind="done", edges=edges, rises=True
    )
    average, peak = f"{speed.average:,.0f}", f"{speed.peak:,.0f}"
    rate = area(
        curves.rates,
        label=words("rate_alt", duration=duration, average=average, peak=peak),
        kind="rate",
        edges=edges,
        line=(speed.average, words("average_line", rows=average)),
    )
    return f'<div class="pair">{_card("chart_progress", progress, words)}{_card("chart_rate", rate, words)}</div>'


def steps_chart(content: Content, words: Words) -> str:
    """Where the time went: one bar, and a line for each step."""
    shares = content.steps.shares
    if not shares or not content.steps.total:
        return ""
    parts = [
        (f"step_{one.step}", one.seconds, f"{words(f'step_{one.step}')}: {seconds_text(one.seconds, words)}")
        for one in shares
    ]
    label = ", ".join(title for _, amount, title in parts if amount)
    bar = stacked(parts, whole=content.steps.total, label=label)
    most = content.steps.bottleneck
    rows = "".join(
        f"<tr><th scope=row>{_key(f'step_{step}')}{escape(word)}"
        f"{' ◀' if most is not None and most.step.value == step else ''}</th>"
        f'<td class="n">{seconds}</td><td class="n">{share}</td><td class="n">{sums}</td></tr>'
        for step, word, seconds, share, sums in step_rows(content, words)
    )
    heads = "".join(
        f"<th{'' if key == 'step' else ' class=n'} scope=col>{escape(words(key))}</th>"
        for key in ("step", "seconds", "share", "in_parallel")
    )
    line = bottleneck(content, words)
    named = f'<p class="bottleneck">{escape(words("bottleneck"))} <b>{escape(line)}</b></p>' if line else ""
    table = f"<table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>"
    scroll = f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(words("time_went"))}">{table}</div>'
    note = f'<p class="under">{escape(words("steps_note"))}</p>'
    return (
        f'<div class="card below"><h3>{escape(words("time_went"))}</h3>{named}{bar}'
        f'<div style="height:14px"></div>{scroll}{note}</div>'
    )


def quota_chart(content: Content, words: Words) -> str:
    """What was used of the org's rolling day."""
    lines = quota_lines(content, words)
    return _card("chart_quota", _lines(lines), words, place="below") if lines else ""


def levels_chart(content: Content, words: Words) -> str:
    """How the checks of each level went."""
    if not content.figures.checks:
        return ""
    return _card("chart_checks", _lines(level_lines(content, words)), words, place="below")


def codes_chart(content: Content, words: Words) -> str:
    """Rows that failed, by code; those that were fixed are marked."""
    more = len({issue.group.code for issue in content.figures.issues}) - CODES_SHOWN
    rest = f'<p class="under">{escape(words("codes_more", codes=more))}</p>' if more > 0 else ""
    return _card("chart_codes", _lines(code_lines(content, words), is_code=True) + rest, words, place="above")


def _lines(lines: Sequence[Line], *, is_code: bool = False) -> str:
    name = "code" if is_code else "span"
    shown = []
    for one in lines:
        label = f"{one.name}: " + ", ".join([one.told, *(title for _, amount, title in one.parts if amount)])
        bar = stacked(one.parts, whole=one.whole, label=label)
        shown.append(f'<{name}>{escape(one.name)}</{name}>{bar}<span class="n">{escape(one.told)}</span>')
    return f'<div class="lines">{"".join(shown)}</div>'


def _card(key: str, inner: str, words: Words, *, place: str = "") -> str:
    return f'<div class="card {place}"><h3>{escape(words(key))}</h3>{inner}</div>'


def _key(kind: str) -> str:
    return (
        f'<svg class="key" viewBox="0 0 10 10" aria-hidden="true"><rect class="{kind}" width="10" height="10"/></svg>'
    )
