"""A batch that several runners share, from a seed: any of them may die, or stand still past its lease and wake up.

All runners live in this one process and take turns by steps. Where one stands still, in the middle of any step, the
others go on beneath it in the call stack until time has passed; then it wakes up with what it knew before.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.simulation.org import Faults, SimJob, SimOrg, SimulatedCrash
from tests.simulation.world import INTERRUPTIONS_MAX, STEPS_MAX, CrashingAudit, Simulation

from forcelift.audit import AuditStore, Lease
from forcelift.audit.records import BatchState
from forcelift.errors import LeaseLost, StateConflict
from forcelift.jobs.coordinator import Coordinator
from forcelift.jobs.messages import Command, CreateJob
from forcelift.protocols.org import ObjectDescribe
from forcelift.storage import FolderStorage

BEAT_PAUSE_S = 10.0
STALE_AFTER_S = 60.0
DEPTH_MAX = 3


@dataclass(kw_only=True)
class SimRunner:
    """One process on the batch."""

    number: int
    lease: Lease
    audit: AuditStore
    coordinator: Coordinator
    handlers: dict[type, Any]
    pending: list[Command] = field(default_factory=list)
    next_beat: float = 0.0
    is_frozen: bool = False
    is_gone: bool = False
    doing: Command | None = None


class SharedOrg(SimOrg):
    """The org, where whoever calls may be interrupted."""

    interrupt: Any = None

    def maybe_crash(self) -> None:
        if self.interrupt is not None:
            self.interrupt()


class SharedSimulation(Simulation):
    """One schedule with several runners."""

    def __init__(self, seed: int, folder: Path) -> None:
        super().__init__(seed, folder)
        self.freezes = self.takeovers = self.joined = self.lost = 0
        self.freeze_share = self.rng.choice([0.0, 0.0005, 0.003])
        self.runners_max = self.rng.choice([2, 2, 3])
        self.look_pause_s = self.rng.choice([0.5, 2.0, 10.0])
        self.runners: list[SimRunner] = []
        self.numbers = 0
        self.stack: list[SimRunner] = []
        self.steps = 0
        self.died_with_a_job = 0
        assert isinstance(self.org, SharedOrg)
        self.org.interrupt = self._interrupt

    def make_org(self, objects: dict[str, ObjectDescribe]) -> SimOrg:
        return SharedOrg(objects, dict.fromkeys(objects, "Key__c"), rng=self.rng, clock=self.clock)

    def open_audit(self) -> AuditStore:
        return AuditStore.open("sqlite://", clock=self.clock, can_share=True)

    def _is_extracting(self) -> bool:
        return False  # a batch that reads everything first is not shared

    def run(self) -> None:
        for _ in range(10 * INTERRUPTIONS_MAX):
            self.org.faults = Faults() if self.calm else self.mix
            self._drive_until_all_have_left()
            if self._state() is BatchState.DONE:
                break
            self.calm = self.calm or self._interruptions() >= INTERRUPTIONS_MAX
        else:
            raise AssertionError("the batch does not end, however often it is resumed")
        self.takeovers = self._count("chunk_taken_over")
        self._check()

    def _interruptions(self) -> int:
        return self.crashes + self.stops + self.forgotten + self.freezes

    def _state(self) -> BatchState:
        batch = self.audit.batch(self.batch.batch_id)
        assert batch is not None
        return batch.state

    def _count(self, action: str) -> int:
        with self.audit.read() as connection:
            query = "SELECT count(*) FROM journal WHERE action = ?"
            return int(connection.exec_driver_sql(query, (action,)).scalar_one())

    # Interruptions: every audit call, step of storage and call of the org may be the last, or the last for a while.

    def _interrupt(self) -> None:
        if self.calm or not self.stack:
            return
        runner = self.stack[-1]
        if self.rng.random() < self.org.faults.crash:
            self._die(runner)
        if len(self.stack) < DEPTH_MAX and self.rng.random() < self.freeze_share:
            self._freeze(runner)

    def _die(self, runner: SimRunner) -> None:
        # Awake again after another took over, between the creation of a job and its abort: nobody is left to know it.
        self.died_with_a_job += isinstance(runner.doing, CreateJob) and self._has_lost(runner)
        raise SimulatedCrash

    @staticmethod
    def _has_lost(runner: SimRunner) -> bool:
        try:
            runner.lease.check()
        except LeaseLost:
            return True
        return False

    def _freeze(self, runner: SimRunner) -> None:
        """The process stands still; the others, or one that resumes the batch, go on."""
        self.freezes += 1
        runner.is_frozen = True
        wakes = self.clock.monotonic() + self.rng.choice([1.0, 30.0, STALE_AFTER_S + 5, 200.0, 1000.0])
        try:
            while self.clock.monotonic() < wakes:
                if not self._awake() and not (self.rng.random() < 0.3 and self._enter(join=False)):
                    self.clock.sleep(max(1.0, min(20.0, wakes - self.clock.monotonic())))
                    continue
                self._one_step()
        finally:
            runner.is_frozen = False

    # Processes come, work and go.

    def _awake(self) -> list[SimRunner]:
        return [runner for runner in self.runners if not runner.is_frozen and runner not in self.stack]

    def _drive_until_all_have_left(self) -> None:
        while not self._enter(join=False):
            self.clock.sleep(STALE_AFTER_S / 3)
        while self.runners:
            self._one_step()

    def _enter(self, *, join: bool) -> bool:
        """Begin, resume or join; False where that is refused."""
        if self._state() is BatchState.DONE:
            return False
        self.numbers += 1
        batch_id = self.batch.batch_id
        try:
            lease = self.audit.enter(batch_id, f"runner {self.numbers}", join=join)
        except StateConflict:
            return False
        bound = self.audit.of_runner(lease)
        if not join:
            self.audit.clear_control(batch_id, lease.owner)
            self.audit.reopen_batch(batch_id)
        audit: Any = CrashingAudit(bound, self._interrupt)
        storage = FolderStorage(self.folder, fsync=False, on_step=lambda step, name: self._interrupt())
        if not join:
            storage.sweep()
        self.settings = type(self.settings)(
            readers=self.rng.randint(1, 3),
            active_chunks_max=self.rng.randint(1, 6),
            attempts_max=30,
            abort_settle_s=15.0,
            look_pause_s=self.look_pause_s,
            is_shared=True,
        )
        calm, self.calm = self.calm, True  # a process that dies before its first step has done nothing
        coordinator, handlers = self._start(audit, storage, lease, lease.fence)
        self.calm = calm
        runner = SimRunner(number=self.numbers, lease=lease, audit=bound, coordinator=coordinator, handlers=handlers)
        runner.next_beat = self.clock.monotonic() + BEAT_PAUSE_S
        runner.pending = coordinator.start(self.clock.now())
        self.runners.append(runner)
        self.joined += join
        return True

    def _one_step(self) -> None:
        """One awake runner, the org, or time does something."""
        self.steps += 1
        assert self.steps < 3 * STEPS_MAX, [
            (one.number, one.is_frozen, one.pending, one.coordinator.waiting_for) for one in self.runners
        ]
        awake = self._awake()
        if awake and len(self.runners) < self.runners_max and self.rng.random() < 0.02:
            self._enter(join=True)
        if self.org.has_work and self.rng.random() < 0.3:
            self.org.work()
            return
        runner = self.rng.choice(awake) if awake else None
        if runner is None:
            self.clock.sleep(1.0)
            return
        self.stack.append(runner)
        try:
            self._step_of(runner)
        except SimulatedCrash:
            self.crashes += 1
            runner.is_gone = True
        finally:
            assert self.stack.pop() is runner
        if runner.is_gone:
            self.runners.remove(runner)

    def _step_of(self, runner: SimRunner) -> None:
        coordinator, now = runner.coordinator, self.clock.now()
        self._beat(runner)
        if coordinator.is_finished:
            self._leave(runner)
            return
        self._interrupt()
        if not self.calm:
            runner.pending.extend(self._interfere(coordinator))
        if runner.pending and self.rng.random() < 0.9:
            command = runner.pending.pop(self.rng.randrange(len(runner.pending)))
            runner.doing = command
            answer = self._answer(runner.handlers, command)
            runner.doing = None
            runner.pending.extend(coordinator.on(answer, self.clock.now()))
            return
        if not any(one.pending for one in self._awake()):
            wakes = [at for one in self._awake() if (at := one.coordinator.wake_at(now)) is not None]
            jump = min((at - now).total_seconds() for at in wakes) if wakes else 0.0
            # Never past a heartbeat: the living ones stay alive.
            self.clock.sleep(min(BEAT_PAUSE_S / 2, max(jump, self.rng.random())))
        else:
            self.clock.sleep(self.rng.random() / 10)
        runner.pending.extend(coordinator.tick(self.clock.now()))

    def _beat(self, runner: SimRunner) -> None:
        if self.clock.monotonic() < runner.next_beat:
            return
        runner.next_beat = self.clock.monotonic() + BEAT_PAUSE_S
        try:
            runner.lease.beat()
        except LeaseLost as error:
            runner.coordinator.lose(error)

    def _leave(self, runner: SimRunner) -> None:
        """As `migration` ends a run, without its clearing up."""
        coordinator = runner.coordinator
        runner.is_gone = True
        if coordinator.is_lost:
            self.lost += 1
            return
        is_whole = coordinator.is_complete and not coordinator.errors
        stopped = coordinator.control.stop
        state = BatchState.DONE if is_whole else BatchState.STOPPED if stopped else BatchState.FAILED
        self.stops += stopped and not is_whole
        if coordinator.errors:
            # The one fault that is told and left to a resume: answers that the org no longer has.
            assert self.forgotten, coordinator.errors
            told = ("without proof", "given up by another process")
            assert all(any(words in str(error) for words in told) for error in coordinator.errors), coordinator.errors
            self.forgotten += 1
        elif not stopped:
            assert is_whole, "a runner left with nothing wrong and chunks not settled"
        self._interrupt()
        try:
            runner.audit.leave(self.batch.batch_id, state, reason=coordinator.why_unfinished)
        except LeaseLost:
            self.lost += 1
            return
        self._interrupt()

    def may_stay_open(self, job: SimJob) -> bool:
        """A job without data that a runner made after it was taken over, and died before it could abort it.

        Or one that could not be told from such a one, and was left alone and reported. Where nobody ever stood still,
        no two jobs can be in doubt at once, and none may be left.
        """
        left_alone = self.freezes > 0 and self._count("strays_left_alone") > 0
        return not job.waiting and (self.died_with_a_job > 0 or left_alone)


@contextlib.contextmanager
def shared_simulated(seed: int, folder: Path) -> Iterator[SharedSimulation]:
    """A simulation of several runners that names its seed when it fails."""
    simulation = SharedSimulation(seed, folder)
    try:
        yield simulation
    except AssertionError as error:
        raise AssertionError(f"seed {seed}: {error}") from error
