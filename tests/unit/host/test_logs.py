"""Logs: rotated under a writer, read from the end, followed."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outrider.host.logs import BLOCK, follow, rotate, tail


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "agents").mkdir()
    return tmp_path / "agents" / "Echo-1.log"


def test_a_big_log_is_copied_and_emptied_while_it_is_written(path: Path) -> None:
    with open(path, "ab", buffering=0) as writer:
        writer.write(b"old\n" * 100)
        assert rotate(path.parent.parent, limit_bytes=399) == [path]
        writer.write(b"new\n")
        assert rotate(path.parent.parent, limit_bytes=399) == []
    assert path.read_text() == "new\n"
    assert path.with_name("Echo-1.log.1").read_text() == "old\n" * 100


def test_what_is_no_log_of_an_agent_is_left(path: Path) -> None:
    other = path.with_name("Echo-1.log.1")
    other.write_text("x" * 1000)
    (path.parent.parent / "outriderd.log").write_text("x" * 1000)
    assert rotate(path.parent.parent, limit_bytes=10) == []
    assert rotate(path.parent / "missing", limit_bytes=10) == []


def test_when_the_copy_does_not_fit_the_log_is_emptied_all_the_same(path: Path) -> None:
    path.write_text("x" * 1000)
    path.with_name("Echo-1.log.1").mkdir()  # where the copy would go
    rotate(path.parent.parent, limit_bytes=10)
    assert path.stat().st_size == 0


@given(
    st.lists(st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"]), max_size=20)), st.integers(0, 9)
)
def test_tail_gives_the_last_lines(tmp_path_factory: pytest.TempPathFactory, lines: list[str], count: int) -> None:
    path = tmp_path_factory.mktemp("tail") / "x.log"
    path.write_text("".join(f"{line}\n" for line in lines), newline="")
    assert tail(path, count) == (lines[-count:] if count else [])


def test_tail_of_a_long_log_reads_its_end_only(path: Path) -> None:
    line = "x" * 79
    path.write_text(f"{line}\n" * 5000)
    with open(path, "ab") as file:
        file.write(b"no end yet")
    assert tail(path, 2) == [line, "no end yet"]
    assert len(tail(path, 3000)) == 3000
    assert len(tail(path, 10**6)) == 5001
    assert path.stat().st_size > 4 * BLOCK


async def test_follow_gives_the_last_lines_and_what_comes(path: Path) -> None:
    append(path, b"one\ntwo\nthree\n")
    pieces = follow(path, 2)
    assert await anext(pieces) == "two\nthree\n"
    append(path, b"four \xc3")
    assert await soon(pieces) == "four "
    append(path, b"\xa4\n")
    assert await soon(pieces) == "ä\n"
    os.truncate(path, 0)
    append(path, b"new\n")
    assert await soon(pieces) == "new\n"
    await pieces.aclose()


async def test_follow_of_nothing_is_an_error(path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await anext(follow(path, 1))


def append(path: Path, data: bytes) -> None:
    with open(path, "ab") as file:
        file.write(data)


async def soon(pieces) -> str:
    async with asyncio.timeout(5):
        return await anext(pieces)
