"""The benchmark's report: which promises are met, which were not measured, and how two runs compare."""

from __future__ import annotations

from pathlib import Path

import pytest
from bench import figures, report
from bench.goals import CLAUSES, goals, verdicts
from bench.measure import Usage
from bench.measured import Measured
from bench.slow_twin import SlowLoad
from bench.suite import told

SIZES = (1_000_000, 5_000_000)
CPU_PER_MILLION = {
    "floor": 10.0,
    "forcelift": 13.0,
    "forcelift, loading alone": 4.0,
    "simple-salesforce": 18.0,
    "jsforce": 30.0,
    "Salesforce CLI": 40.0,
}


def usage(rows: int, cpu_per_million: float, *, peak_mb: float = 500.0, requests: int = 100) -> Usage:
    cpu = cpu_per_million * rows / 1e6
    return Usage(cpu_s=cpu, wall_s=0.6 * cpu, peak_mb=peak_mb, requests=requests, rows=rows)


def everything() -> Measured:
    """A run that measured all and met all goals."""
    measured = Measured()
    for rows in SIZES:
        measured.times[rows] = {name: [usage(rows, cpu)] * 2 for name, cpu in CPU_PER_MILLION.items()}
        measured.differing[rows] = 0
    measured.memory = {rows: usage(rows, 9.0, peak_mb=600.0 + rows / 1e6) for rows in (1_000_000, 20_000_000)}
    measured.small = {SIZES[1]: [usage(SIZES[1], 15.0)] * 2}
    measured.usual = {SIZES[1]: [usage(SIZES[1], 14.0)] * 2}
    measured.slow = {SIZES[1]: SlowLoad(usage=usage(SIZES[1], 13.0, requests=125), job_seconds=(40.0, 130.0, 140.0))}
    measured.starts = {"forcelift --help": [0.1, 0.2], "forcelift status": [0.4]}
    measured.cold = {"forcelift status": [0.9]}
    measured.earlier = figures.Earlier(at="yesterday", figures=figures.figures(measured))
    return measured


def told_of(measured: Measured) -> dict[str, str]:
    return dict(verdicts(goals(measured)))


def test_a_run_that_met_everything_says_so_for_each_promise() -> None:
    measured = everything()
    found = told_of(measured)
    assert list(found) == [clause.words for clause in CLAUSES]
    assert set(found.values()) == {"met"}
    text = report.document(measured)
    assert "not met" not in text
    assert "not measured" not in text.lower()
    assert "40,000 rows for each call" in text
    assert "| `forcelift status` | 400 (400) | 900 (900) |" in text


def test_one_size_that_misses_a_goal_is_enough() -> None:
    measured = everything()
    measured.times[SIZES[1]]["forcelift"] = [usage(SIZES[1], 14.2)]
    found = told_of(measured)
    assert [words for words, verdict in found.items() if verdict == "**not met**"] == [CLAUSES[0].words]


def test_what_was_not_measured_is_not_met() -> None:
    measured = everything()
    del measured.times[SIZES[1]], measured.memory[20_000_000], measured.starts["forcelift status"]
    measured.memory[5_000_000] = usage(5_000_000, 9.0)
    measured.small, measured.slow, measured.earlier = {}, {}, None
    found = told_of(measured)
    assert found[CLAUSES[0].words] == "met; not measured with 5,000,000 rows"
    assert [found[clause.words] for clause in CLAUSES[-7:]] == [
        "not measured with 20,000,000 rows",
        *["not measured with 5,000,000 rows"] * 3,
        "met",
        "not measured",
        "not measured",
    ]


def test_a_client_that_was_not_measured_with_the_large_table_is_told() -> None:
    measured = everything()
    del measured.times[SIZES[1]]["jsforce"]
    found = told_of(measured)
    assert [words for words, verdict in found.items() if verdict == "met; not measured with 5,000,000 rows"] == [
        "loading alone at least 6 times jsforce's rows per CPU second"
    ]


def test_the_report_says_how_often_each_was_measured() -> None:
    measured = everything()
    measured.times[SIZES[0]]["jsforce"] = measured.times[SIZES[0]]["jsforce"][:1]
    text = report.document(measured)
    assert "| jsforce | 1 | 30.00 (30.00 to 30.00) | 3.00 | 33,333 | " in text
    assert "| floor | 2 | 10.00 (10.00 to 10.00) | 1.00 | 100,000 | " in text


def test_other_sizes_than_promised_prove_nothing() -> None:
    measured = Measured(times={200_000: {"floor": [usage(200_000, 1.0)], "forcelift": [usage(200_000, 9.0)]}})
    assert told_of(measured)[CLAUSES[0].words] == "not measured with 1,000,000 rows, 5,000,000 rows"
    assert [goal.is_met for goal in goals(measured)] == [False, True]


def test_short_jobs_prove_nothing_about_calls() -> None:
    measured = everything()
    measured.slow = {SIZES[1]: SlowLoad(usage=usage(SIZES[1], 13.0, requests=50), job_seconds=(20.0, 30.0))}
    assert told_of(measured)["at least 37,440 rows per API call, 5 million rows, jobs of minutes"].startswith("not mea")


def test_a_floor_that_did_other_work_is_no_floor() -> None:
    measured = everything()
    measured.differing[SIZES[0]] = 7
    assert told_of(measured)[CLAUSES[0].words] == "met; not measured with 1,000,000 rows"
    assert "**7 of 1,000,000 rows were hashed otherwise than by the floor.**" in report.document(measured)


def test_a_second_run_is_held_against_the_first(tmp_path: Path) -> None:
    file = tmp_path / "first.json"
    first, second = everything(), everything()
    figures.save(file, first)
    second.times[SIZES[0]]["floor"] = [usage(SIZES[0], 7.9)]
    second.earlier = figures.read(file)
    then, now, ratio = figures.ratios(second)["1,000,000 rows, floor: CPU s"]
    assert (then, now, round(ratio, 2)) == (10.0, 7.9, 0.79)
    assert told_of(second)[CLAUSES[-1].words] == "**not met**"
    assert "| 1,000,000 rows, floor: CPU s | 10 | 7.9 | 0.79 | **apart** |" in report.document(second)


def test_a_part_that_is_measured_again_replaces_that_part(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    figures.save(file, everything())
    part = Measured(starts={"forcelift --help": [0.25]})
    figures.save(file, part)
    kept = figures.read(file).figures
    assert kept["forcelift --help: ms"] == 250.0
    assert kept["1,000,000 rows, floor: CPU s"] == 10.0


@pytest.mark.parametrize(("ratio", "near"), [(1.0, True), (1.2, True), (1.21, False), (0.84, True), (0.83, False)])
def test_two_runs_are_as_near_whichever_came_first(ratio: float, near: bool) -> None:
    assert figures.is_near(ratio) is near


def test_what_fails_is_told_and_the_rest_goes_on() -> None:
    measured = Measured()
    with told(measured, "a part"):
        raise RuntimeError("the sink is gone")
    assert measured.left_out == ["a part: the sink is gone"]
    assert "Not measured: a part: the sink is gone." in report.document(measured)
