"""What a plan may say by its design and this version cannot do yet. It is refused by name, never passed over."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from msgspec.structs import replace

from forcelift.errors import Problem
from forcelift.plan.models import Plan

Found = Iterator[tuple[str, str]]  # path, name of the feature


def unsupported(plan: Plan, position: Callable[[str], tuple[int, int]] | None = None) -> list[Problem]:
    """One problem for each place that needs something which is not built yet.

    Args:
        position: Gives line and column of a path; `LoadedPlan.position`.
    """
    problems = [
        Problem(
            message=f"{feature} is not built yet", path=path, hint="this version cannot carry out the plan as it is"
        )
        for path, feature in _features(plan)
    ]
    if position is None:
        return problems
    places = [position(problem.path) for problem in problems]
    return [
        replace(problem, line=line, column=column) for problem, (line, column) in zip(problems, places, strict=True)
    ]


def _features(plan: Plan) -> Found:
    if plan.staging.startswith("s3://"):
        yield "staging", "staging on `s3:`"
    if plan.notify:
        yield "notify", "notifying people"
    if plan.target.auth is not None and plan.target.auth.airflow_conn is not None:
        yield "target.auth.airflow_conn", "signing in by an Airflow connection"
