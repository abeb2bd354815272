from __future__ import annotations

import random

import pytest
from msgspec.structs import replace

from outrider.calls.state_folder import CHUNK, OURS, Item, digest, hash_of, steps, superfluous, unsafe


def file(path: str, *chunks: bytes, mode: int = 0o600, mtime_ns: int = 1) -> Item:
    """All chunks but the last count as whole."""
    size = (len(chunks) - 1) * CHUNK + len(chunks[-1]) if chunks else 0
    return Item(path, "file", mode, size, mtime_ns, hashes=tuple(map(hash_of, chunks)))


def folder(path: str) -> Item:
    return Item(path, "folder", 0o700)


def test_a_digest_says_what_is_held_and_not_when_it_was_written() -> None:
    one = (folder("a"), file("a/b", b"x"), Item("l", "link", target="a/b"))
    assert digest(one) == digest((one[0], replace(one[1], mtime_ns=7), one[2]))
    others = [
        one[:2],
        (one[0], file("a/b", b"y"), one[2]),
        (one[0], file("a/b", b"x", mode=0o640), one[2]),
        (one[0], one[1], Item("l", "link", target="a/c")),
    ]
    assert len({digest(one), *map(digest, others)}) == 5


@pytest.mark.parametrize(
    "items",
    [
        (),
        (folder("a"), file("a/b", b"x"), folder("a/c"), Item("a/c/l", "link", target="../../anywhere"), file("b")),
        (file("..."), file("a..b")),
        (folder("sub"), file(f"sub/{OURS}")),
    ],
)
def test_what_lies_in_the_folder_is_safe(items: tuple[Item, ...]) -> None:
    assert unsafe(items) == ""


@pytest.mark.parametrize(
    "items",
    [
        (file("../x"),),
        (file(".."),),
        (file("."),),
        (file(""),),
        (file("/etc/passwd"),),
        (file("/x"),),
        (file("a//b"),),
        (folder("a"), file("a/../../x")),
        (folder("a"), file("a/")),
        (folder("a"), file("a/..")),
        (folder("a"), file("a/./b")),
        (file("x\0"),),
        (file("a/b"),),  # its folder is not there
        (Item("a", "link", target="/etc"), file("a/passwd")),
        (file("a"), file("a/b")),
        (folder("a"), Item("a", "link", target="/etc"), file("a/passwd")),
        (folder(OURS), file(f"{OURS}/journal")),
        (file(OURS),),
        (replace(file("a", b"x"), size=CHUNK + 1),),
        (replace(file("a", b"x"), size=-1),),
        (file("a", b"x", mode=0o4755),),
    ],
)
def test_what_might_lie_elsewhere_is_refused(items: tuple[Item, ...]) -> None:
    assert unsafe(items)


def test_only_chunks_that_differ_are_fetched() -> None:
    wanted = (file("f", b"1", b"2", b"3", b"4"),)
    staged = {"f": file("f", b"1", b"x", b"3")}
    (step,) = steps(wanted, staged, {})
    assert (step.base, step.chunks, step.room) == ("staged", (1, 3), wanted[0].size - staged["f"].size)
    (step,) = steps(wanted, {}, staged)
    assert (step.base, step.chunks, step.room) == ("own", (1, 3), wanted[0].size)
    (step,) = steps(wanted, {}, {"f": file("f", b"y")})
    assert (step.base, step.chunks) == ("none", (0, 1, 2, 3))


def test_a_file_that_is_the_same_is_linked_and_one_of_other_rights_is_copied() -> None:
    wanted = (file("f", b"1"), file("g", b"1"), file("h", b"1"))
    own = {"f": wanted[0], "g": replace(wanted[1], mode=0o644), "h": replace(wanted[2], mtime_ns=2)}
    assert [(step.base, step.chunks) for step in steps(wanted, {}, own)] == [("linked", ()), ("own", ()), ("own", ())]


def test_what_has_no_place_goes_innermost_first() -> None:
    staged = [folder("a"), file("a/b", b"x"), folder("c"), file("d"), file("e")]
    wanted = (file("c", b"x"), folder("d"), file("e"))
    assert [item.path for item in superfluous(wanted, staged)] == ["d", "c", "a/b", "a"]


def test_files_without_bytes_and_files_of_whole_chunks_have_the_chunks_that_they_have() -> None:
    rng = random.Random(1)
    for _ in range(200):
        count = rng.randrange(4)
        item = file("f", *[rng.randbytes(1) for _ in range(count)])
        assert unsafe((item,)) == ""
