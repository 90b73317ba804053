"""The steps that a plan may want a second person for: those that destroy what another step cannot bring back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

SECOND_PERSON_STEPS: Final[Mapping[str, str]] = {
    "rollback": "`rollback --execute`: deletes records of the org and puts earlier values back",
    "restore": "`restore --execute`: switches automations on again, over changes if told so",
    "purge": "`audit purge --execute`: removes personal data and with them the way back",
    "drop_backup": "`backup --drop-older-than --execute`: drops copies of tables",
}
