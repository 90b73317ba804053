"""Switch automations off and put them back, so that a crash between any two steps can be undone.

Reads:   the org's automations; what the audit database remembers of them.
Writes:  the audit database before the org, always: the exact state, who wants it off, and each write to come.
Re-run:  everything compares first. What is as wanted is left alone, what somebody else changed is reported.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Final

from msgspec import Struct

from forcelift.audit import AuditStore, Holder, Lease, NewState, OrgState, digest
from forcelift.audit.org_states import Ending
from forcelift.before.prepare.plan import Decision, PreparePlan, plan_prepare
from forcelift.before.prepare.restore import Now, Outcome, RestoredItem, compare, differing
from forcelift.errors import (
    ForceliftError,
    LostReply,
    OrgRefused,
    OrgUnavailable,
    SignInFailed,
    StateConflict,
    TargetError,
)
from forcelift.protocols.clock import Clock
from forcelift.protocols.setup import AutomationKind, ItemName, ItemState, Setup

WRITE_PAUSES_S: Final = (1.0, 5.0, 15.0, 30.0)
LOCK_WAIT_S: Final = 900.0
LOCK_PAUSE_S: Final = 1.0

Told = Callable[[str], None]


class StillOff(StateConflict):
    """Automations could not all be put back."""


def _silent(sentence: str) -> None:
    """Nobody is told."""


class Preparer(Struct, kw_only=True):
    """Switches automations of one org for one person or batch.

    Attributes:
        by: Who acts: user, host and process.
        run_tests: Apex tests that a deploy of triggers to production runs; all local ones if empty.
        told: Is told what is done next.
    """

    setup: Setup
    audit: AuditStore
    org_id: str
    by: str
    clock: Clock
    run_tests: Sequence[str] = ()
    told: Told = _silent
    _turn: Lease | None = None

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Be the only one that switches in this org, of all who use the audit database; waits for its turn."""
        with ExitStack() as stack:
            ends = self.clock.monotonic() + LOCK_WAIT_S
            while self._turn is None:
                try:
                    self._turn = stack.enter_context(self.audit.lease(f"automations of org {self.org_id}", self.by))
                except StateConflict as error:
                    if self.clock.monotonic() >= ends:
                        raise StateConflict(
                            f"another process has been switching automations of org {self.org_id} for "
                            f"{LOCK_WAIT_S / 60:.0f} minutes",
                            state="nothing was changed by this process",
                            hint="see who by `forcelift status`, then run the same command again",
                        ) from error
                    self.clock.sleep(LOCK_PAUSE_S)
            try:
                yield
            finally:
                self._turn = None

    def look(self, objects: Sequence[str], leave_on: Sequence[str]) -> PreparePlan:
        """Find the automations of objects and decide what becomes of each; changes nothing."""
        found = self.setup.find(objects)
        known = self.audit.open_states(self.org_id)
        remembered = {(one.kind, one.name) for one in known}
        wanted = [
            (one.item, one.record_id)
            for one in found.automations
            if one.namespace is None
            and (one.is_active is not False or (one.item.kind.value, one.item.name) in remembered)
        ]
        return plan_prepare(found, self.setup.read(wanted), known, leave_on)

    def switch_off(self, plan: PreparePlan, holder: Holder) -> list[OrgState]:
        """Carry out a plan for a holder; call it inside `alone`. Returns what the holder holds.

        Raises:
            StateConflict: Somebody changed an automation that is remembered as off; nothing was done.
            TargetError: The org refused. What was switched off before is held, and a restore puts it back.
        """
        if changed := plan.of(Decision.CHANGED):
            names = ", ".join(str(one.item) for one in changed)
            raise StateConflict(
                f"somebody changed what Forcelift had switched off: {names}",
                state="nothing was changed by this command",
                hint="look at them in the org; `forcelift restore --keep NAME` takes them as they are, "
                "`--overwrite NAME` puts back what was",
            )
        wanted = {one.item: one for one in plan.of(Decision.SWITCH, Decision.JOIN)}
        new = []
        for one in wanted.values():
            state = one.state
            assert state is not None, "what is to be switched was read"
            before = state.document if one.known is None else one.known.before
            off = self.setup.switched_off(state).document if one.known is None else one.known.off
            name = one.item
            new.append(
                NewState(kind=name.kind.value, name=name.name, object=one.automation.object, before=before, off=off)
            )
        taken = {_item(one): one for one in self.audit.take_states(self.org_id, new, holder)} if new else {}
        batch_id = holder.name if holder.kind == "batch" else None
        to_write = [one.state for one in plan.of(Decision.SWITCH) if one.state is not None]
        for step in self.setup.steps([self.setup.switched_off(state) for state in to_write]):
            known = [taken[state.item] for state in step]
            self.told(f"switching off {_names(step)}")
            for org_state, state in zip(known, step, strict=True):
                self.audit.state_writing(org_state, state.document, why="switch off", batch_id=batch_id)
            now = self._make(step, known, [digest(one.before) for one in known], batch_id=batch_id)
            for org_state in known:
                self.audit.state_is_off(org_state, now[_item(org_state)].document, batch_id=batch_id)
        for one in plan.of(Decision.JOIN):
            if one.known is not None and one.known.off_at is None and one.state is not None:
                self.audit.state_is_off(one.known, one.state.document, batch_id=batch_id)
        return [one for one in self.audit.open_states(self.org_id) if holder.key in [h.key for h in one.holders]]

    def _make(
        self, step: Sequence[ItemState], known: Sequence[OrgState], start: Sequence[str], *, batch_id: str | None
    ) -> dict[ItemName, ItemState]:
        """Make a step so, whatever becomes of replies, and read it back.

        Args:
            known: What is remembered of the items, in their order.
            start: Digests of what they are to be before; anything else is somebody's change.
        """
        places = [(state.item, state.record_id) for state in step]
        lost: ForceliftError | None = None
        for pause in (*WRITE_PAUSES_S, None):
            now = self.setup.read(places)
            if lost is not None and all(_is_so(state, now.get(state.item)) for state in step):
                return now
            for state, first in zip(step, start, strict=True):
                present = now.get(state.item)
                if present is None or digest(present.document) not in (first, digest(state.document)):
                    raise StateConflict(
                        f"somebody changed {state.item} in the meantime",
                        state="it was not touched",
                        hint="run the same command again; it looks at everything anew",
                    )
            if self._turn is not None:
                self._turn.check()
            try:
                self.setup.write(step, run_tests=self.run_tests)
            except (LostReply, OrgUnavailable) as error:
                lost = error
                if pause is None:
                    raise
                self.clock.sleep(pause)
                continue
            except OrgRefused as refused:
                # A refusal proves that nothing is on its way, unless an earlier attempt, or a dead process's, may be.
                for one in known:
                    if lost is None and one.writing_at is None:
                        self.audit.state_refused(one, refused.message, batch_id=batch_id)
                raise
            return self._read_back(step, places)
        raise AssertionError("the last attempt raises or returns")

    def _read_back(
        self, step: Sequence[ItemState], places: Sequence[tuple[ItemName, str]]
    ) -> dict[ItemName, ItemState]:
        now = self.setup.read(places)
        wrong = [state for state in step if state.item not in now or now[state.item].is_active != state.is_active]
        if wrong:
            raise TargetError(
                f"the org took the change of {_names(wrong)} and shows it otherwise",
                state="what it was is remembered",
                hint="look at it in the org, then run the same command again",
            )
        return now

    def dead_holders(self, states: Sequence[OrgState], *, but: Holder | None = None) -> list[Holder]:
        """Batches that hold something and that no process works on, as after `kill -9`."""
        held = {one.key: one for state in states for one in state.holders if one.kind == "batch"}
        if but is not None:
            held.pop(but.key, None)
        return [one for one in held.values() if not self.audit.runners(one.name)]

    def look_at_restore(
        self, release: Collection[Holder], *, overwrite: Collection[str] = (), keep: Collection[str] = ()
    ) -> list[RestoredItem]:
        """What a restore would do once these holders have let go; changes nothing."""
        states = self.audit.open_states(self.org_id)
        keys = {one.key for one in release}
        now = self._read([one for one in states if not _others(one, keys)])
        return [self._judge(one, keys, now.get(_item(one)), overwrite, keep) for one in states]

    def _read(self, states: Sequence[OrgState]) -> dict[ItemName, ItemState]:
        return self.setup.read([(_item(one), str(one.before["id"])) for one in states])

    def _judge(
        self,
        one: OrgState,
        released: Collection[tuple[str, str]],
        now: ItemState | None,
        overwrite: Collection[str],
        keep: Collection[str],
    ) -> RestoredItem:
        acts = self.setup.restored(one.before, _item(one)).acts
        if others := _others(one, released):
            why = f"held by {', '.join(str(other) for other in others)}"
            return RestoredItem(state=one, outcome=Outcome.HELD, acts=acts, why=why)
        found = compare(one, now)
        proof = digest(now.document) if now is not None else None
        if _is_named(one, keep):
            return RestoredItem(state=one, outcome=Outcome.KEPT, acts=acts, proof=proof)
        # A write that was begun and never answered for may still be on its way: what is written now comes after it.
        if found is Now.AS_BEFORE and one.writing_at is None:
            return RestoredItem(state=one, outcome=Outcome.FOUND, acts=acts, proof=proof)
        if found in (Now.AS_OFF, Now.AS_BEFORE) or (now is not None and _is_named(one, overwrite)):
            outcome = Outcome.OVERWRITTEN if found is Now.CHANGED else Outcome.RESTORE
            return RestoredItem(state=one, outcome=outcome, acts=acts, proof=proof)
        why = "it does not exist any more"
        if now is not None:
            why = f"differs from what Forcelift left in: {differing(one.off, now.document)}"
        return RestoredItem(state=one, outcome=Outcome.CHANGED, acts=acts, why=why, proof=proof)

    def restore(
        self,
        release: Collection[Holder],
        *,
        overwrite: Collection[str] = (),
        keep: Collection[str] = (),
        batch_id: str | None = None,
    ) -> tuple[list[RestoredItem], list[ForceliftError]]:
        """Let holders go and put back what nobody holds any more; call it inside `alone`.

        What fails stays remembered, and the others are put back all the same. Returns every item, and the errors.
        """
        for holder in release:
            self.audit.release_holder(self.org_id, holder, by=self.by)
        done: list[RestoredItem] = []
        to_write: dict[ItemName, RestoredItem] = {}
        for one in self.look_at_restore((), overwrite=overwrite, keep=keep):
            match one.outcome:
                case Outcome.RESTORE | Outcome.OVERWRITTEN:
                    to_write[_item(one.state)] = one
                    continue
                case Outcome.FOUND | Outcome.KEPT:
                    ending: Ending = "found" if one.outcome is Outcome.FOUND else "kept"
                    proof = one.proof or "gone"
                    self.audit.state_ended(one.state, ending, by=self.by, proof=proof, batch_id=batch_id)
                case Outcome.CHANGED:
                    self.audit.state_stuck(one.state, f"changed by somebody: {one.why}")
            done.append(one)
        errors: list[ForceliftError] = []
        wanted = [self.setup.restored(one.state.before, item) for item, one in to_write.items()]
        # Backwards, so that triggers, whose deploy may run Apex tests, come when everything else is on again.
        for step in reversed(self.setup.steps(wanted)):
            items = [to_write[state.item] for state in step]
            if errors and isinstance(errors[-1], (OrgUnavailable, SignInFailed)):
                done += [self._failed(one, errors[-1]) for one in items]
                continue
            self.told(f"putting back {_names(step)}")
            try:
                done += self._put_back(step, items, batch_id=batch_id)
            except ForceliftError as error:
                errors.append(error)
                done += [self._failed(one, error) for one in items]
        return done, errors

    def _put_back(
        self, step: Sequence[ItemState], items: Sequence[RestoredItem], *, batch_id: str | None
    ) -> list[RestoredItem]:
        for one, state in zip(items, step, strict=True):
            self.audit.state_writing(one.state, state.document, why="put back", batch_id=batch_id)
        known = [one.state for one in items]
        now = self._make(step, known, [one.proof or "" for one in items], batch_id=batch_id)
        done = []
        for one, state in zip(items, step, strict=True):
            present = now[state.item].document
            proof = digest(present)
            if proof != digest(state.document):
                why = f"was put back and differs in: {differing(state.document, present)}"
                self.audit.state_stuck(one.state, why)
                done.append(_as(one, Outcome.FAILED, why, proof))
                continue
            is_over = one.outcome is Outcome.OVERWRITTEN
            ending: Ending = "overwritten" if is_over else "restored"
            self.audit.state_ended(one.state, ending, by=self.by, proof=proof, batch_id=batch_id)
            done.append(_as(one, Outcome.OVERWRITTEN if is_over else Outcome.RESTORED, None, proof))
        return done

    def _failed(self, one: RestoredItem, error: ForceliftError) -> RestoredItem:
        # The audit database may be what failed: the first error is the one to tell.
        with suppress(ForceliftError):
            self.audit.state_stuck(one.state, error.message)
        return _as(one, Outcome.FAILED, error.message, one.proof)


def _is_so(wanted: ItemState, now: ItemState | None) -> bool:
    """Whether a write took effect: off is off, on is exactly as wanted."""
    if now is None:
        return False
    return digest(now.document) == digest(wanted.document) or not (wanted.is_active or now.is_active)


def _as(one: RestoredItem, outcome: Outcome, why: str | None, proof: str | None) -> RestoredItem:
    return RestoredItem(state=one.state, outcome=outcome, acts=one.acts, why=why, proof=proof)


def _item(one: OrgState) -> ItemName:
    return ItemName(AutomationKind(one.kind), one.name)


def _others(one: OrgState, released: Collection[tuple[str, str]]) -> list[Holder]:
    return [holder for holder in one.holders if holder.key not in released]


def _is_named(one: OrgState, names: Collection[str]) -> bool:
    whole = one.name.lower()
    return any(name.lower() in (whole, whole.rpartition(".")[2]) for name in names)


def _names(step: Sequence[ItemState]) -> str:
    return ", ".join(str(state.item) for state in step)
