"""Every code that the rules can give has a sentence and a remedy, and the published order knows it."""

from __future__ import annotations

import re
from pathlib import Path

import forcelift.rules
from forcelift.rules.findings import SENTENCES, STEPS
from forcelift.rules.remedies import REMEDIES, rule_remedy

SOURCES = Path(forcelift.rules.__file__).parent
CODES = {"null_key", "duplicate", *STEPS}


def test_every_code_has_a_sentence_and_a_remedy() -> None:
    assert set(SENTENCES) == set(REMEDIES) == CODES
    for code in CODES:
        remedy = rule_remedy(f"REJECTED_{code.upper()}")
        assert remedy is not None
        assert remedy.endswith(".")
    assert rule_remedy("REJECTED_NOTHING") is None
    assert rule_remedy("null_key") is None


def test_every_refusal_in_the_code_is_one_of_them() -> None:
    text = "\n".join(path.read_text(encoding="utf-8") for path in SOURCES.glob("*.py"))
    named = set(re.findall(r'\.refuse\(\s*"(\w+)"', text)) | set(re.findall(r': "(invalid_\w+)",', text))
    assert named == CODES
