"""The catalogue's files: a small head that never moves, and a snapshot that is replaced whole.

`catalogue.head` is 4096 bytes that writer and readers map: little-endian, in this order, magic, format version, retired
flag, generation, confirmed (monotonic ns), confirmed (Unix ns), hash of the boot. The generation is written last, so
whoever sees it moved finds the snapshot in place.

`catalogue.snap`: magic, format version, count, generation, CRC of the index; then the index, `count` hashes of agent
names in ascending order followed by `count` (offset, length, CRC); then one msgpack Entry each. A reader maps it and
decodes only what it is asked for, so a lookup costs the same with 50,000 instances and the memory is shared.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path

import msgspec

from outrider.discovery.records import Entry

HEAD_SIZE = 4096
HEAD = struct.Struct("<8sII QQQQ")
MAGIC_HEAD = b"ORCATHD\0"
MAGIC_SNAP = b"ORCATSN\0"
FORMAT = 1
# Byte offsets of the head's fields that change in place.
AT_RETIRED, AT_GENERATION, AT_CONFIRMED, AT_CONFIRMED_WALL, AT_BOOT = 12, 16, 24, 32, 40

SNAP = struct.Struct("<8sII QII")
SLOT = struct.Struct("<QII")

_encoder = msgspec.msgpack.Encoder()


def hash_of(name: str) -> int:
    """64 bits of the name; the index is sorted by it."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")


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
    index = struct.pack(f"<{len(records)}Q", *(key for key, _ in records)) + bytes(slots)
    head = SNAP.pack(MAGIC_SNAP, FORMAT, len(records), generation, zlib.crc32(index), 0)
    return b"".join([head, index, *(record for _, record in records)])
