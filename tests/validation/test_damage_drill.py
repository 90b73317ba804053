"""The damage drill: whatever is changed behind the tool's back, level 5 names it, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.validation.damage_world import DamageWorld, damage_world
from tests.validation.damages import DAMAGES, SMALL, Damage, Place

from forcelift.after.validate.checks import CheckStatus
from forcelift.errors import ExitCode
from forcelift.validating.batch import Validated

BIG_ROWS = 300_000
LEVELS = (1, 2, 3, 4, 5)


def places(validated: Validated, level: int = 5) -> set[Place]:
    """What a level names."""
    return {
        (example.kind.value, example.key or "", example.field)
        for check in validated.found.checks
        if check.level == level
        for example in check.examples
    }


def found_by(validated: Validated) -> list[int]:
    """Levels with a check that failed."""
    return sorted({check.level for check in validated.found.checks if check.status is CheckStatus.FAILED})


def assert_clean(validated: Validated) -> None:
    assert found_by(validated) == [], [check for check in validated.found.checks if check.status is CheckStatus.FAILED]
    assert validated.exit_code is ExitCode.DONE
    assert places(validated) == set()


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DamageWorld]:
    with damage_world(tmp_path_factory.mktemp("damage"), rows=400, chunk_rows=150) as world:
        yield world


def test_there_are_sixty_kinds_of_damage() -> None:
    assert len({damage.name for damage in DAMAGES}) == len(DAMAGES) == 60
    assert {damage.name for damage in DAMAGES} >= set(SMALL)


def test_an_undamaged_org_has_nothing_to_report(small: DamageWorld) -> None:
    validated = small.validate(*LEVELS)
    assert_clean(validated)
    assert {check.status for check in validated.found.checks} == {CheckStatus.PASSED}


@pytest.mark.parametrize("damage", [one for one in DAMAGES if one.name in SMALL], ids=lambda damage: damage.name)
def test_small_damage_is_named(small: DamageWorld, damage: Damage) -> None:
    place, undo = damage.do(small)
    try:
        validated = small.validate(5)
    finally:
        undo()
    assert validated.exit_code is ExitCode.ROWS_REFUSED
    assert place in places(validated)
    assert {key for _, key, _ in places(validated)} == {place[1]}


def test_damage_that_was_undone_is_not_reported_any_more(small: DamageWorld) -> None:
    assert_clean(small.validate(5))


@pytest.mark.slow
def test_all_sixty_kinds_of_damage_are_named_among_300_000_records(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each alone; the other levels run too, and which of them sees what is the table in docs/concepts/validation.md."""
    seen: dict[str, list[int]] = {}
    with damage_world(tmp_path, rows=BIG_ROWS, chunk_rows=100_000, memory_mb=2048) as world:
        assert_clean(world.validate(*LEVELS))
        for damage in DAMAGES:
            place, undo = damage.do(world)
            try:
                validated = world.validate(*LEVELS)
            finally:
                undo()
            assert place in places(validated), f"{damage.name}: {place} is not among {places(validated)}"
            assert len({key.lower() for _, key, _ in places(validated)}) <= 2, places(validated)
            seen[damage.name] = found_by(validated)
        assert_clean(world.validate(5))
    assert all(5 in levels for levels in seen.values())
    with capsys.disabled():
        print("\n" + json.dumps(seen, ensure_ascii=False, indent=1))
