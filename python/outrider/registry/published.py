"""The number that a publication leaves in Consul when it went through: all documents of the fleet are there.

It stands below the placements, so that one read tells both what is placed and whether that is all, and only grows, so
that a snapshot from before is told from what is there now.
"""

from __future__ import annotations

import time

import msgspec
from msgspec import Struct

from outrider.registry.client import Consul, Reply
from outrider.registry.kv import Change, Guard, get_doc, put_docs, raw_docs
from outrider.registry.layout import PLACEMENT, PUBLISHED


class Published(Struct, frozen=True):
    """`outrider/placement/.published`: Unix milliseconds, or more, so that it grows."""

    number: int


def number_in(placements: Reply) -> int:
    """The number in a recursive read of the placements; 0 if there is none that can be read."""
    content = raw_docs(placements, PLACEMENT).get(PUBLISHED.removeprefix(PLACEMENT))
    try:
        return msgspec.json.decode(content, type=Published).number if content else 0
    except msgspec.MsgspecError:
        return 0


def is_whole(consul: Consul) -> bool:
    """Whether a publication went through since Consul had no documents. Raises ConsulError."""
    return consul.get(f"/v1/kv/{PUBLISHED}").status != 404


def publication_went_through(consul: Consul, guard: Guard) -> None:
    """Write the next number, while `guard` holds: a Consul that was wiped a moment ago is not to be called whole.

    Raises ConsulError.
    """
    known, index = get_doc(consul, PUBLISHED, Published)
    number = max(known.number + 1 if known else 0, int(time.time() * 1000))
    put_docs(consul, [Change(PUBLISHED, Published(number), index)], [guard])
