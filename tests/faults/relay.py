"""Stands between a host's link and the bridge, as this kernel has no netem: late, doubled and reordered packets.

relay.py relay LINK BRIDGE SECONDS SEED: until SECONDS are over; LINK must have been taken from the bridge
relay.py checksums LINK on|off: off, so that the link's packets have their checksums before they leave
"""

from __future__ import annotations

import array
import fcntl
import heapq
import os
import random
import select
import socket
import struct
import subprocess
import sys
import time

LATE_S = (0.15, 0.25)
DOUBLED = 0.05
SIOCETHTOOL, ETHTOOL_STXCSUM = 0x8946, 0x17
TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 0x0002, 0x1000
ETH_P_ALL = 3


def checksums(link: str, on: bool) -> None:
    """Without, the link's packets are also no longer than the wire takes."""
    value = array.array("I", [ETHTOOL_STXCSUM, on])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as line:
        fcntl.ioctl(line, SIOCETHTOOL, struct.pack("16sP", link.encode(), value.buffer_info()[0]))


def tap_on(bridge: str) -> int:
    """A new port of the bridge; what is written there comes to it. It goes with this process."""
    tap = os.open("/dev/net/tun", os.O_RDWR)
    name = fcntl.ioctl(tap, TUNSETIFF, struct.pack("16sH", b"", IFF_TAP | IFF_NO_PI) + bytes(22))[:16]
    words = ["ip", "link", "set", name.rstrip(b"\0").decode(), "master", bridge, "up"]
    subprocess.run(words, check=True)
    return tap


def relay(link: str, bridge: str, seconds: float, rng: random.Random) -> None:
    """Carry packets both ways, each after a while of its own, some twice."""
    line = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    line.bind((link, ETH_P_ALL))
    tap = tap_on(bridge)
    late: list[tuple[float, int, int, bytes]] = []
    count, end = 0, time.monotonic() + seconds
    while (now := time.monotonic()) < end:
        while late and late[0][0] <= now:
            _, _, to, packet = heapq.heappop(late)
            try:
                os.write(to, packet)
            except OSError:  # a full queue, or a link that is down just now
                continue
        for source in select.select([line, tap], [], [], max(0.0, late[0][0] - now) if late else 0.5)[0]:
            to = tap
            if source is line:
                packet, (_, _, kind, *_) = line.recvfrom(65535)
                if kind == socket.PACKET_OUTGOING:
                    continue
            else:
                packet, to = os.read(tap, 65535), line.fileno()
            for _ in range(2 if rng.random() < DOUBLED else 1):
                count += 1
                heapq.heappush(late, (time.monotonic() + rng.uniform(*LATE_S), count, to, packet))


if __name__ == "__main__":
    if sys.argv[1] == "checksums":
        checksums(sys.argv[2], sys.argv[3] == "on")
    else:
        relay(sys.argv[2], sys.argv[3], float(sys.argv[4]), random.Random(sys.argv[5]))
