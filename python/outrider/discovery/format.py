"""The catalogue's files: a small head that never moves, and a snapshot that is replaced whole.

`catalogue.head` is 4096 bytes that writer and readers map, in the host's byte order: magic, format version, retired
flag, generation, confirmed (monotonic ns), confirmed (Unix ns), hash of the boot. The last four are aligned words, each
stored whole. The generation is written last, so whoever sees it moved finds the snapshot in place.

`catalogue.snap`: magic, format version, count, generation, CRC of the index; then the index, `count` hashes of agent
names in ascending order followed by `count` (offset, length, CRC); then one msgpack Entry each. A reader maps it and
decodes only what it is asked for, so opening and a lookup cost the same with 50,000 instances and the memory is shared:
a record is held against its checksum when it is decoded, the index when a name is not found in it.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import msgspec

from outrider.discovery.records import Entry

HEAD_SIZE = 4096
HEAD = struct.Struct("=8sII QQQQ")
MAGIC_HEAD = b"ORCATHD\0"
MAGIC_SNAP = b"ORCATSN\0"
FORMAT = 1
# The head's fields that change in place: one as a 32-bit word, the others as 64-bit words. They are stored through a
# memoryview: struct.pack_into clears the bytes first, and 1.7 % of the reads in a tight loop saw that.
AT_RETIRED = 3
AT_GENERATION, AT_CONFIRMED, AT_CONFIRMED_WALL, AT_BOOT = 2, 3, 4, 5

SNAP = struct.Struct("=8sII QII")
SLOT = struct.Struct("=QII")

_encoder = msgspec.msgpack.Encoder()


def hash_of(name: str) -> int:
    """64 bits of the name; the index is sorted by it."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")


@cache
def boot_hash() -> int:
    """Tells one boot of this host from another: monotonic times of different boots do not compare."""
    try:
        return hash_of(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
    except OSError:
        return 0


def encode_records(entries: Mapping[str, Entry]) -> list[tuple[int, bytes]]:
    """Hash and record of every entry, in the index's order."""
    return sorted((hash_of(name), _encoder.encode(entry)) for name, entry in entries.items())


def snapshot(records: list[tuple[int, bytes]], generation: int) -> bytes:
    """The whole snapshot file."""
    offset = SNAP.size + len(records) * (8 + SLOT.size)
    slots = bytearray()
    for _, record in records:
        slots += SLOT.pack(offset, len(record), zlib.crc32(record))
        offset += len(record)
    index = struct.pack(f"={len(records)}Q", *(key for key, _ in records)) + bytes(slots)
    head = SNAP.pack(MAGIC_SNAP, FORMAT, len(records), generation, zlib.crc32(index), 0)
    return b"".join([head, index, *(record for _, record in records)])
