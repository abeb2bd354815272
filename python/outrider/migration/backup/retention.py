"""Which backups stay: of each thing one a day, one a week, and always the last that was proved. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime

from msgspec import Struct

from outrider.migration.backup.model import Backup, Subject


class Keep(Struct, frozen=True):
    """The last backup of each of so many days, and of each of so many weeks, counted in those that have one."""

    daily: int = 7
    weekly: int = 4


def outdated(backups: Iterable[Backup], keep: Keep) -> list[Backup]:
    """Those that may go, oldest first.

    A backup that does not count stands for no day: it goes when a later one of the same was proved.
    """
    series: dict[Subject, list[Backup]] = {}
    for backup in sorted(backups, key=lambda backup: (-backup.manifest.created, backup.id)):
        same = next((subject for subject in series if subject.same(backup.subject)), backup.subject)
        series.setdefault(same, []).append(backup)
    gone = [backup for found in series.values() for backup in _outdated(found, keep)]
    return sorted(gone, key=lambda backup: (backup.manifest.created, backup.id))


def _outdated(newest_first: list[Backup], keep: Keep) -> list[Backup]:
    proved = [backup for backup in newest_first if backup.proof]
    if not proved:
        return []
    stay = {proved[0].id}
    for period, many in ((_day, keep.daily), (_week, keep.weekly)):
        stay |= set(list(_last_of_each(proved, period).values())[:many])
    since = proved[0].manifest.created
    return [
        backup
        for backup in newest_first
        if backup.id not in stay and (backup.proof or backup.manifest.created <= since)
    ]


def _last_of_each(newest_first: list[Backup], period: Callable[[datetime], object]) -> dict[object, str]:
    found: dict[object, str] = {}
    for backup in newest_first:
        found.setdefault(period(datetime.fromtimestamp(backup.manifest.created, UTC)), backup.id)
    return found


def _day(when: datetime) -> object:
    return when.date()


def _week(when: datetime) -> object:
    return when.isocalendar()[:2]
