"""The report beside the checklist's template, word by word where the template has words."""

from __future__ import annotations

import re

from tests.unit.report_fixtures import content

from forcelift.after.report import markdown

# The template as the checklist has it, without its figures; `*` stands for them.
TEMPLATE = """\
# Data Migration Report

## Executive Summary
- **Project:** *
- **Date:** * to *
- **Status:** *

## Migration Statistics

| Table | Source | Target | Success | Failed | Rate |
|-------|--------|--------|---------|--------|------|
| * | * | * | * | * | *% |
| **TOTAL** | **\\*** | **\\*** | **\\*** | **\\*** | **\\*%** |

## Reconciliation Results

| Check | Status | Details |
|-------|--------|---------|
| Count Match | * | * |
| Sum Match | * | * |
| Sample Check | * | * |

## Issues Encountered

1. **Issue:** * records * failed with *
   - **Root Cause:** *
   - **Resolution:** *
   - **Records Fixed:** *

## Performance Metrics

| Metric | Value |
|--------|-------|
| Total Duration | * |
| Average Throughput | * records/second |
| Peak Throughput | * records/second |
| SF API Calls Used | * |

## Sign-off

| Role | Name | Date | Signature |
|------|------|------|-----------|
| Data Engineer |  |  |  |
| DBA |  |  |  |
| Business Owner |  |  |  |
| QA Lead |  |  |  |
"""


def test_every_line_of_the_template_stands_in_the_report_in_order() -> None:
    lines = markdown(content(switched_off=(), signed=())).splitlines()
    at = 0
    for wanted in TEMPLATE.splitlines():
        found = next((place for place in range(at, len(lines)) if _is_like(lines[place], wanted)), None)
        assert found is not None, f"`{wanted}` is not there after line {at}"
        at = found + 1


def test_the_performance_table_has_the_templates_four_lines_and_no_other() -> None:
    text = markdown(content())
    table = text.split("## Performance Metrics")[1].split("\n\n")[1].splitlines()
    assert [line.split("|")[1].strip() for line in table[2:]] == [
        "Total Duration",
        "Average Throughput",
        "Peak Throughput",
        "SF API Calls Used",
    ]


def test_the_true_code_is_named() -> None:
    text = markdown(content()).replace("\\", "")
    assert "4,000 records of KPS_T_SALES_MD failed with STRING_TOO_LONG" in text
    assert "INVALID_FIELD_FOR_INSERT" not in text


def _is_like(line: str, wanted: str) -> bool:
    """Whether a line is the template's, whatever stands for `*` (`\\*` beside asterisks that are meant)."""
    parts = re.split(r"\\\*|(?<!\*)\*(?!\*)", wanted)
    return re.fullmatch(".+".join(re.escape(part) for part in parts), line) is not None
