"""The key is nobody else's to read, and each start is later than the last whatever the clock says."""

from __future__ import annotations

import base64
import time
from pathlib import Path

import pytest

from outrider.errors import HostError
from outrider.host.peers.key import next_start, read_key


def test_a_key_is_read_from_a_file_of_its_owner_alone(tmp_path: Path) -> None:
    file = tmp_path / "peers.key"
    file.write_bytes(base64.b64encode(bytes(range(32))) + b"\n")
    file.chmod(0o600)
    assert read_key(file) == bytes(range(32))
    file.chmod(0o640)
    with pytest.raises(HostError, match="used by others"):
        read_key(file)


@pytest.mark.parametrize("content", [b"", b"not base64!", base64.b64encode(bytes(16))])
def test_a_damaged_key_is_refused_and_not_quoted(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "peers.key"
    file.write_bytes(content)
    file.chmod(0o600)
    with pytest.raises(HostError, match="is not 32 bytes in base64") as refused:
        read_key(file)
    assert not content or content.decode() not in str(refused.value)


def test_a_missing_key_says_where_it_comes_from(tmp_path: Path) -> None:
    with pytest.raises(HostError, match=r"site\.yml"):
        read_key(tmp_path / "none")


def test_a_start_is_later_than_the_last_though_the_clock_went_back(tmp_path: Path) -> None:
    file = tmp_path / "started"
    first = next_start(file)
    assert abs(first - time.time_ns()) < 10**9
    file.write_text(str(first + 3600 * 10**9))
    assert next_start(file) == first + 3600 * 10**9 + 1
    file.write_text("damaged")
    assert abs(next_start(file) - time.time_ns()) < 10**9
    assert next_start(tmp_path / "no folder" / "started") > first
