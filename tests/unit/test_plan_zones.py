"""Names of time zones: the quick look agrees with the list of all."""

from __future__ import annotations

import pytest

from forcelift.plan import zones


def test_each_zone_of_this_machine_is_one() -> None:
    assert len(zones.zone_names()) > 400
    assert all(zones.is_zone(name) for name in zones.zone_names())


@pytest.mark.parametrize("name", ["Asia/Bangkok", "UTC", "Etc/GMT+7"])
def test_a_zone_is_found_without_listing_all(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if not any((zones.Path(root) / name).exists() for root in zones.zoneinfo.TZPATH):
        pytest.skip("this machine has its zones from the package `tzdata` alone")
    monkeypatch.setattr(zones, "zone_names", lambda: frozenset[str]())
    assert zones.is_zone(name)


NO_ZONES = (
    *("", "asia/bangkok", "Asia", "Asia/", "/UTC", "Asia//Bangkok", "Asia/Nowhere", "../zoneinfo/UTC", "./UTC"),
    *("posix/UTC", "right/UTC", "posixrules", "zone.tab", "tzdata.zi", "Asia/Bangkok\n"),
)


@pytest.mark.parametrize("name", NO_ZONES)
def test_what_is_no_zone_is_refused(name: str) -> None:
    assert name not in zones.zone_names()
    assert not zones.is_zone(name)
