"""The report's charts: which figures they show, with their words. Pure."""

from __future__ import annotations

from collections import Counter
from html import escape
from typing import Final

from forcelift.after.report.content import Content
from forcelift.after.report.html_plots import area, stacked
from forcelift.after.report.told import bottleneck, seconds_text, step_rows, times
from forcelift.after.report.words import Words

CODES_SHOWN: Final = 10


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
        f'<div class="card" style="margin-top:16px"><h3>{escape(words("time_went"))}</h3>{named}{bar}'
        f'<div style="height:14px"></div>{scroll}{note}</div>'
    )


def quota_chart(content: Content, words: Words) -> str:
    """What was used of the org's rolling day."""
    use = content.quota
    if use is None:
        return ""
    lines = []
    for key, used, allowed in (
        ("quota_rows", use.rows, use.rows_allowed),
        ("quota_batches", use.batches, use.batches_allowed),
    ):
        text = words("quota_of", used=used, allowed=allowed, percent=use.share(used, allowed))
        bar = stacked([("bar", float(used), text)], whole=allowed, label=f"{words(key)}: {text}")
        lines.append(f'<span>{escape(words(key))}</span>{bar}<span class="n">{escape(text)}</span>')
    return _card("chart_quota", f'<div class="lines">{"".join(lines)}</div>', words, space=True)


def levels_chart(content: Content, words: Words) -> str:
    """How the checks of each level went."""
    if not content.figures.checks:
        return ""
    lines = []
    for one in content.figures.reconciled:
        found = Counter(str(check.details["status"]) for check in content.figures.checks if check.level == one.level)
        total = sum(found.values())
        kinds = (
            ("good", "passed", "checks_passed"),
            ("warn", "drift", "checks_drift"),
            ("told", "not_checked", "checks_open"),
            ("bad", "failed", "checks_failed"),
        )
        parts = [(kind, float(found[status]), f"{words(key)}: {found[status]:,}") for kind, status, key in kinds]
        text = words("checks_count", passed=found["passed"], checks=total)
        name = words(f"level_{one.level}")
        label = f"{name}: " + ", ".join(title for _, amount, title in parts if amount)
        bar = stacked(parts, whole=total, label=label)
        lines.append(f'<span>{escape(name)}</span>{bar}<span class="n">{escape(text)}</span>')
    return _card("chart_checks", f'<div class="lines">{"".join(lines)}</div>', words, space=True)


def codes_chart(content: Content, words: Words) -> str:
    """Rows that failed, by code; those that were fixed are marked."""
    failed: Counter[str] = Counter()
    fixed: Counter[str] = Counter()
    for issue in content.figures.issues:
        failed[issue.group.code] += issue.group.rows
        fixed[issue.group.code] += issue.fixed
    most = max(failed.values(), default=0)
    lines = []
    for code, rows in failed.most_common(CODES_SHOWN):
        done = min(rows, fixed[code])
        kind = "warn" if code.startswith("REJECTED_") else "bad"
        origin = words("rejected" if kind == "warn" else "refused")
        parts = [
            ("good", float(done), f"{words('fixed')}: {done:,}"),
            (kind, float(rows - done), f"{origin}: {rows:,}"),
        ]
        bar = stacked(parts, whole=most, label=f"{code}: {rows:,}, {origin}; {words('fixed')}: {done:,}")
        state = words("all_fixed") if done == rows else words("still_open", rows=rows - done)
        lines.append(f'<code>{escape(code)}</code>{bar}<span class="n"><b>{rows:,}</b> · {escape(state)}</span>')
    more = len(failed) - CODES_SHOWN
    rest = f'<p class="under">{escape(words("codes_more", codes=more))}</p>' if more > 0 else ""
    inner = f'<div class="lines">{"".join(lines)}</div>{rest}'
    return f'<div class="card" style="margin-bottom:16px"><h3>{escape(words("chart_codes"))}</h3>{inner}</div>'


def _card(key: str, inner: str, words: Words, *, space: bool = False) -> str:
    style = ' style="margin-top:16px"' if space else ""
    return f'<div class="card"{style}><h3>{escape(words(key))}</h3>{inner}</div>'


def _key(kind: str) -> str:
    return (
        f'<svg class="key" viewBox="0 0 10 10" aria-hidden="true"><rect class="{kind}" width="10" height="10"/></svg>'
    )
