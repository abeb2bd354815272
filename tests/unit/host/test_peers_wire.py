"""A datagram is taken once, from who has the key, and from the sender's latest session alone."""

from __future__ import annotations

import pytest

from outrider.host.peers.wire import MAX_BYTES, Beat, Bye, Codec, Item, Question, Refused, TooLarge

KEY = bytes(range(32))
BEAT = Beat(("gpu3",), (Item("Echo-1", True, 0.25, "exited: signal 9"),))


def reason(codec: Codec, data: bytes) -> str:
    with pytest.raises(Refused) as refused:
        codec.open(data)
    return refused.value.reason


@pytest.fixture
def here() -> Codec:
    return Codec(KEY, "gpu1", 1)


@pytest.fixture
def there() -> Codec:
    return Codec(KEY, "gpu2", 100)


@pytest.mark.parametrize("message", [BEAT, Question(7, "lease", b"\x00x"), Bye()])
def test_what_was_sealed_is_what_is_read(here: Codec, there: Codec, message: Beat | Question | Bye) -> None:
    packet, anew = here.open(there.seal(message))
    assert (packet.host, packet.message, anew) == ("gpu2", message, False)


def test_every_changed_byte_is_noticed(here: Codec, there: Codec) -> None:
    data = there.seal(BEAT)
    for place in range(len(data)):
        changed = bytearray(data)
        changed[place] ^= 1
        assert reason(here, bytes(changed)) == ("version" if place == 0 else "key")
    here.open(data)


def test_another_fleets_key_is_refused(here: Codec) -> None:
    assert reason(here, Codec(bytes(32), "gpu2", 100).seal(BEAT)) == "key"


@pytest.mark.parametrize("data", [b"", b"\x01", b"\x01" + bytes(16), bytes(MAX_BYTES + 1)])
def test_what_is_too_short_or_long_is_not_even_looked_at(here: Codec, data: bytes) -> None:
    assert reason(here, data) == "size"


def test_garbage_with_the_right_code_is_refused(here: Codec) -> None:
    for body in (b"\xc1", b"\x93\x01\x02\x03", b"\x95\xa4gpu2\x01\x01\x01\x91\x63", b"\x80"):
        assert reason(here, b"\x01" + body + here._code(b"\x01" + body)) == "garbage"


def test_the_own_echo_is_refused(here: Codec) -> None:
    assert reason(here, here.seal(BEAT)) == "echo"


def test_a_copy_and_what_was_overtaken_are_refused(here: Codec, there: Codec) -> None:
    first, second = there.seal(BEAT), there.seal(BEAT)
    here.open(second)
    assert reason(here, second) == reason(here, first) == "replay"
    here.open(there.seal(BEAT))


def test_only_a_later_start_begins_a_new_session(here: Codec, there: Codec) -> None:
    kept = there.seal(BEAT), there.seal(BEAT)
    here.open(kept[0])
    assert reason(here, Codec(KEY, "gpu2", 100).seal(BEAT)) == "replay"
    assert reason(here, Codec(KEY, "gpu2", 99).seal(BEAT)) == "replay"
    assert here.open(Codec(KEY, "gpu2", 101).seal(BEAT))[1]
    assert reason(here, kept[1]) == "replay"


def test_sessions_of_hosts_do_not_touch_each_other(here: Codec, there: Codec) -> None:
    here.open(there.seal(BEAT))
    assert not here.open(Codec(KEY, "gpu3", 1).seal(BEAT))[1]


def test_what_does_not_fit_is_not_sent(there: Codec) -> None:
    assert len(there.seal(Question(1, "lease", bytes(1000)))) <= MAX_BYTES
    with pytest.raises(TooLarge):
        there.seal(Question(1, "lease", bytes(MAX_BYTES)))
