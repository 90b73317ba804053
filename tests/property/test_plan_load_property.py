"""Whatever stands in the file, the answer is a plan or a list of problems, and never a secret."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from forcelift.errors import ExitCode, PlanError
from forcelift.plan import LoadedPlan, load_order, load_plan, plan_diff, plan_document, unsupported
from forcelift.plan.reference import example_text
from forcelift.plan.urls import MASK, holds_literal_secret, masked_url

ENV = {
    "ORACLE_USER": "etl",
    "ORACLE_PASSWORD": "hunter2secret",
    "SF_CLIENT_ID": "id",
    "SF_ACCESS_TOKEN": "hunter2secret",
}
RELAXED = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
GOOD = example_text().replace("file:server.key", "${SF_ACCESS_TOKEN}")
TOKENS = re.findall(r"\w+|[^\w\s]|\s+", GOOD)
WORDS = st.sampled_from(
    ["null", "true", "0", "-1", "1e3", "[]", "{}", "[a, b]", "{a: b}", "*a", "&a x", "!!str 1", "!x", "<<: {a: b}",
     "? ", "- ", ": ", "\n", "\t", "'", '"', "|\n", ">\n", "#", "---", "...", "%YAML 1.1\n", "${NONE}",
     "${ORACLE_PASSWORD}", "file:x", "file:", "postgresql://u:p@h/d", "http://[", "twin:", "\x00", "\x85", "\ud7ff",
     "😀", "0o17", "\u2028", ".inf", "~", "@"]
)  # fmt: skip


def answer(folder: Path, content: bytes) -> LoadedPlan | PlanError:
    """Load it. Anything but a plan or a PlanError passes through and fails the test."""
    path = folder / "plan.yaml"
    path.write_bytes(content)
    try:
        result: LoadedPlan | PlanError = load_plan(path, env=ENV)
    except PlanError as error:
        result = error
    if isinstance(result, PlanError):
        assert result.exit_code is ExitCode.USAGE
        assert result.problems
        assert "hunter2secret" not in f"{result}{result.problems!r}{result.__cause__!r}"
        assert len(str(result).splitlines()) == len(result.problems) + 1, "a message goes over several lines"
        return result
    assert "hunter2secret" not in f"{result!r}{result.text}{plan_document(result.plan)}"
    assert [table for group in load_order(result.plan) for table in group.tables]
    for problem in unsupported(result.plan, result.position):
        assert problem.line is not None
    assert plan_diff(result.plan, result.plan) == []
    return result


def test_the_plan_that_is_mutated_is_good(tmp_path: Path) -> None:
    assert isinstance(answer(tmp_path, GOOD.encode()), LoadedPlan)


@RELAXED
@given(content=st.binary(max_size=300))
@example(content=b"\xff\xfea\x00")
def test_random_bytes(tmp_path: Path, content: bytes) -> None:
    assert isinstance(answer(tmp_path, content), PlanError)


@RELAXED
@given(text=st.lists(st.one_of(st.sampled_from(TOKENS), WORDS), max_size=60).map("".join))
def test_random_text_of_the_tokens_of_a_plan(tmp_path: Path, text: str) -> None:
    answer(tmp_path, text.encode("utf-8", "surrogatepass"))


@RELAXED
@given(data=st.data())
def test_mutations_of_a_good_plan(tmp_path: Path, data: st.DataObject) -> None:
    tokens = list(TOKENS)
    for _ in range(data.draw(st.integers(1, 3))):
        index = data.draw(st.integers(0, len(tokens) - 1))
        match data.draw(st.sampled_from(["drop", "replace", "insert", "swap"])):
            case "drop":
                tokens[index] = ""
            case "replace":
                tokens[index] = data.draw(WORDS | st.text(max_size=5))
            case "insert":
                tokens[index] += data.draw(WORDS)
            case _:
                other = data.draw(st.integers(0, len(tokens) - 1))
                tokens[index], tokens[other] = tokens[other], tokens[index]
    answer(tmp_path, "".join(tokens).encode("utf-8", "replace"))


@RELAXED
@given(
    secret=st.text(st.characters(codec="ascii", min_codepoint=33, exclude_characters="$="), min_size=12, max_size=30)
)
@example(secret="aaaa@bbbb/cccc?dd")
@example(secret="?????????????@??")
@example(secret="@0000000000?")
@example(secret="0000000000/?")
def test_a_password_in_a_url_never_shows(tmp_path: Path, secret: str) -> None:
    url = f"postgresql://u:{secret}@db/x"
    assert holds_literal_secret(url)
    assert secret not in masked_url(url)
    assert MASK in masked_url(url)
    quoted = url.replace("'", "''")
    text = (
        f"version: 1\nproject: P\nsource: {{url: '{quoted}'}}\ntarget: {{url: 'twin:o'}}\naudit: {{url: '{quoted}'}}\n"
    )
    error = answer(tmp_path, text.encode())
    assert isinstance(error, PlanError)
    assert secret not in str(error)


@pytest.mark.parametrize("line", range(len(GOOD.splitlines())))
def test_a_plan_that_lacks_a_line(tmp_path: Path, line: int) -> None:
    lines = GOOD.splitlines(keepends=True)
    answer(tmp_path, "".join(lines[:line] + lines[line + 1 :]).encode())
