"""What a run of the benchmarks has measured, and what an earlier one had."""

from __future__ import annotations

from dataclasses import dataclass, field

from bench.measure import Usage
from bench.slow_twin import SlowLoad


@dataclass(frozen=True, slots=True, kw_only=True)
class Earlier:
    """A run before this one."""

    at: str
    figures: dict[str, float]


@dataclass(slots=True, kw_only=True)
class Measured:
    """All that was measured.

    Attributes:
        times: By table size and contestant, one figure a turn.
        failures: By table size and contestant, why there is no figure.
        memory: By table size, the whole pipe on the narrow table.
        small, usual: The whole pipe with little memory, and with the usual beside it, by table size.
        slow: The whole pipe into a twin that takes `SLOW_ROWS_PER_S`, by table size.
        starts: Wall seconds of short commands, one a start.
        cold: The same with nothing of the environment's files in memory.
        differing: By table size, how many rows Forcelift hashed otherwise than the floor: it must be none.
        left_out: What there was no time for, or what failed.
        earlier: Figures of a run before.
    """

    times: dict[int, dict[str, list[Usage]]] = field(default_factory=dict)
    failures: dict[int, dict[str, str]] = field(default_factory=dict)
    memory: dict[int, Usage] = field(default_factory=dict)
    small: dict[int, list[Usage]] = field(default_factory=dict)
    usual: dict[int, list[Usage]] = field(default_factory=dict)
    slow: dict[int, SlowLoad] = field(default_factory=dict)
    starts: dict[str, list[float]] = field(default_factory=dict)
    cold: dict[str, list[float]] = field(default_factory=dict)
    differing: dict[int, int] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    earlier: Earlier | None = None
