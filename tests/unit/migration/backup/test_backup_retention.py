"""Which backups stay, over years of them."""

from __future__ import annotations

import random

from outrider.migration.backup.model import Backup, Manifest, Proof, Subject
from outrider.migration.backup.retention import Keep, outdated

DAY_S = 86400.0
MONDAY = 1_800_230_400.0  # 2027-01-18 00:00 UTC, a Monday


def backup(day: float, *, proved: bool = True, instance: str = "A-1", host: str = "h") -> Backup:
    created = MONDAY + day * DAY_S
    id = f"{instance}.{host}.{day}"
    manifest = Manifest(Subject("state", host, "lab", "A", instance, "v"), created, (), 0, 0, "", "t")
    return Backup(id, manifest, Proof(id, created, 0.1, ()) if proved else None)


def staying(backups: list[Backup], keep: Keep | None = None) -> list[float]:
    gone = {found.id for found in outdated(backups, keep or Keep())}
    return [(b.manifest.created - MONDAY) / DAY_S for b in backups if b.id not in gone]


def test_seven_days_and_four_weeks() -> None:
    days = [41.1, 48.1, 53.1, 54.1, 55.1, 56.1, 57.1, 58.1, 59.1]
    assert staying([backup(day + 0.1) for day in range(60)]) == days


def test_the_last_of_a_day_stays() -> None:
    assert staying([backup(0.1), backup(0.5), backup(0.9)]) == [0.9]


def test_days_without_one_do_not_count() -> None:
    days = [0.0, 100.0, 200.0]
    assert staying([backup(day) for day in days], Keep(2, 0)) == [100.0, 200.0]


def test_the_last_proved_one_always_stays() -> None:
    backups = [backup(0.0), backup(50.0, proved=False), backup(51.0, proved=False)]
    assert staying(backups, Keep(0, 0)) == [0.0, 50.0, 51.0]


def test_one_that_does_not_count_goes_when_a_later_one_was_proved() -> None:
    assert staying([backup(0.0), backup(1.0, proved=False), backup(2.0)]) == [0.0, 2.0]
    assert staying([backup(0.0, proved=False), backup(1.0, proved=False)]) == [0.0, 1.0]


def test_each_instance_and_host_is_a_series_of_its_own() -> None:
    backups = [backup(0.0), backup(1.0, instance="A-2"), backup(2.0, host="g"), backup(3.0)]
    assert staying(backups, Keep(1, 0)) == [1.0, 2.0, 3.0]


def test_what_goes_does_not_depend_on_when_it_is_asked() -> None:
    """Pruned each day or once in a while, what stays of the last weeks is the same."""
    random_days = random.Random(4)
    for _ in range(30):
        days = sorted(random_days.uniform(0, 80) for _ in range(40))
        kept: list[Backup] = []
        for day in days:
            kept.append(backup(day))
            gone = {found.id for found in outdated(kept, Keep())}
            kept = [found for found in kept if found.id not in gone]
        assert [(b.manifest.created - MONDAY) / DAY_S for b in kept] == staying([backup(day) for day in days])
