"""Backups at four levels that count only once they were restored; what migrations and people ask of them.

`prove` answers whether an agent's backups were restored lately; `Desk` makes, checks, restores and prunes those of a
host.
"""

from __future__ import annotations

from outrider.migration.backup.desk import Desk
from outrider.migration.backup.record import Standing, prove

__all__ = ["Desk", "Standing", "prove"]
