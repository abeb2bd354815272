"""Which migrations that have ended are kept: what risk looks back at and people look for, and no more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from outrider.migration.staged.journal import JOURNAL
from outrider.migration.staged.records import Entry, Journal
from outrider.registry.client import Consul
from outrider.registry.kv import Guard, delete_tree, get_doc
from outrider.registry.layout import MIGRATIONS

KEPT_OF_AGENT = 20
KEPT_S = 7 * 86400.0
KEPT = 300  # of the whole fleet; each shim reads all of them whenever one changes


def outdated(journals: Iterable[Journal], now: float) -> list[Journal]:
    """Those that may go: none that has not ended or is broken, nor what such a one follows. `now`: Unix seconds."""
    ended: list[tuple[float, Journal]] = []
    followed: set[str] = set()
    for journal in journals:
        if journal.ended and not journal.broken:
            ended.append((journal.ended.at, journal))
        else:
            followed.update(journal.spec.after)
    found: list[Journal] = []
    of_agent: Counter[str] = Counter()
    for number, (at, journal) in enumerate(sorted(ended, key=lambda pair: pair[0], reverse=True), 1):
        of_agent[journal.spec.agent] += 1
        looked_for = now - at < KEPT_S or of_agent[journal.spec.agent] <= KEPT_OF_AGENT
        if not (number <= KEPT and looked_for) and journal.id not in followed:
            found.append(journal)
    return found


def delete(consul: Consul, journal: Journal, guard: Guard) -> bool:
    """Delete one, all at once, while `guard` holds; False if it does not end as it is known to. Raises ConsulError."""
    key = f"{MIGRATIONS}{journal.id}{JOURNAL}{len(journal.entries) - 1:05}"
    last, index = get_doc(consul, key, Entry)
    if last is None or last != journal.ended:
        return False
    delete_tree(consul, f"{MIGRATIONS}{journal.id}/", [guard, Guard(key, index=index)])
    return True
