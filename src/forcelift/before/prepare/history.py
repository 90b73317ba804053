"""Field history: which of the fields that a plan fills have theirs tracked, and switching it on where the plan asks.

Reads:   the fields of the plan's objects, one query for each object.
Writes:  the journal before each change; a custom field's `trackHistory`.
Re-run:  what is tracked already is left alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from msgspec import Struct
from msgspec.structs import replace

from forcelift.audit import AuditStore
from forcelift.before.prepare.fields import mapped_fields
from forcelift.errors import OrgRefused, UsageError
from forcelift.plan import TablePlan
from forcelift.protocols.org import ObjectDescribe
from forcelift.protocols.setup import Setup

_BY_HAND = "switch it on in Setup: Object Manager, Fields & Relationships, Set History Tracking"


class HistoryFinding(Struct, frozen=True, kw_only=True):
    """How the history of one object's fields stands.

    Attributes:
        mapped: How many of its fields the plan fills.
        tracked: Those of them, and of those that the plan names, whose history is tracked.
        wanted: What `prepare.track_history` names of this object.
        switched: What this prepare has switched on.
        refused: What could not be switched on, by field, and why.
    """

    object: str
    mapped: int
    tracked: tuple[str, ...]
    wanted: tuple[str, ...] = ()
    switched: tuple[str, ...] = ()
    refused: Mapping[str, str]

    @property
    def asked(self) -> list[str]:
        """What the plan asks for and is not so yet."""
        return [name for name in self.wanted if name not in self.tracked]


def find_history(
    tables: Sequence[TablePlan], describes: Mapping[str, ObjectDescribe], setup: Setup, wanted: Sequence[str]
) -> list[HistoryFinding]:
    """How the field history of these tables' objects stands; changes nothing.

    Args:
        wanted: `Object.Field` names of the plan. Those of objects that are not looked at are left out.
    Raises:
        UsageError: The org has no such field.
    """
    mapped: dict[str, dict[str, None]] = {}
    for table in tables:
        if (describe := describes.get(table.object)) is not None:
            mapped.setdefault(describe.name, {}).update(dict.fromkeys(mapped_fields(table, describe)))
    found = []
    for object_name, names in mapped.items():
        fields = setup.tracked_fields(object_name)
        spelled = {name.lower(): name for name in fields}
        asked = [name.partition(".")[2] for name in wanted if name.partition(".")[0].lower() == object_name.lower()]
        if missing := [name for name in asked if name.lower() not in spelled]:
            raise UsageError(
                f"`prepare.track_history` of the plan names `{object_name}.{missing[0]}`, and there is no such field",
                state="nothing was changed in the org",
                hint="mend its name; a field that `prepare` makes can be named once it is there",
            )
        asked = [spelled[name.lower()] for name in dict.fromkeys(asked)]
        ours = dict.fromkeys([*(spelled.get(name.lower(), name) for name in names), *asked])
        found.append(
            HistoryFinding(
                object=object_name,
                mapped=len(names),
                tracked=tuple(name for name in ours if fields.get(name)),
                wanted=tuple(asked),
                refused={},
            )
        )
    return found


def track_history(
    finding: HistoryFinding,
    setup: Setup,
    audit: AuditStore,
    *,
    org_id: str,
    by: str,
    told: Callable[[str], None],
) -> HistoryFinding:
    """Switch on what the plan asks for. What the org refuses is told and leaves the rest alone.

    It stays on: what was tracked is history, and nobody is asked for its end.
    """
    switched, refused = [], {}
    for name in finding.asked:
        if not name.endswith("__c"):
            refused[name] = f"a standard field has no definition that a call may change; {_BY_HAND}"
            continue
        told(f"switching the history of {finding.object}.{name} on")
        audit.journal("history_switching", {"org": org_id, "field": f"{finding.object}.{name}", "by": by})
        try:
            setup.track_field(finding.object, name)
        except OrgRefused as error:
            refused[name] = error.message
            audit.journal("history_refused", {"org": org_id, "field": f"{finding.object}.{name}", "why": error.message})
            continue
        switched.append(name)
    if switched:
        # An org may take the change of an object that tracks nothing, and show the field as before.
        now = setup.tracked_fields(finding.object)
        for name in [name for name in switched if not now.get(name)]:
            switched.remove(name)
            refused[name] = f"the org took the change and tracks nothing: switch on the history of {finding.object}"
    return replace(finding, tracked=(*finding.tracked, *switched), switched=tuple(switched), refused=refused)
