"""YAML as people write it, and as nobody should: every value knows its place, and nothing crashes the reader."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outrider.errors import FleetError
from outrider.fleet.source import MAX_REPEATED, Source

PATH = Path("f.yml")


def refused(text: str) -> str:
    with pytest.raises(FleetError) as caught:
        Source(PATH, text)
    assert len(caught.value.problems) == 1
    return caught.value.problems[0]


def test_every_value_knows_its_line_and_column() -> None:
    source = Source(PATH, "a:\n  b: [1,\n      2]\n")
    assert source.data == {"a": {"b": [1, 2]}}
    assert source.where(("a", "b")) == (2, 3)
    assert source.where(("a", "b", 1)) == (3, 7)
    assert source.where(("a", "nowhere", "deep")) == (1, 1)
    assert source.at(("a", "b", 1), "odd") == "f.yml:3: a.b.1: odd"


def test_a_key_given_twice_is_named_with_both_lines_and_reading_goes_on() -> None:
    source = Source(PATH, "a: 1\nb:\n  c: 1\n  c: 2\na: 3\n")
    assert source.problems == ["f.yml:4: b.c: given twice, first in line 3", "f.yml:5: a: given twice, first in line 1"]
    assert source.data == {"a": 1, "b": {"c": 1}}


def test_anchors_and_merge_keys_work_and_own_keys_win() -> None:
    source = Source(PATH, "x: &x {a: 1, b: 1}\ny: &y {b: 2, c: 2}\nz: {<<: [*x, *y], a: 9}\nw: *x\n")
    assert source.data["z"] == {"a": 9, "b": 1, "c": 2}
    assert source.data["w"] == {"a": 1, "b": 1}
    assert "`<<` takes a mapping" in refused("a: {<<: 3}")


def test_dates_stay_text() -> None:
    assert Source(PATH, "a: 2024-01-01").data == {"a": "2024-01-01"}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: [1\nb: 2", "f.yml:2:2: not YAML: while parsing a flow sequence"),
        ("a: 'x", "f.yml:1:6: not YAML: while scanning a quoted scalar found unexpected end of stream"),
        ("a:\tb: c", "not YAML"),
        ("a: \0", "not YAML"),
        ("a: 1\n---\nb: 2", "not YAML: expected a single document"),
        ("", "f.yml:1: the file is empty"),
        ("# only a comment\n", "f.yml:1: the file is empty"),
        ("a: !vault x", "f.yml:1: the tag !vault is not allowed here"),
        ("a: !!python/object/apply:os.system [x]", "is not allowed here"),
        ("a: !!set {x}", "the tag !!set is not allowed here"),
        ("a: !!binary eA==", "the tag !!binary is not allowed here"),
        ("a: !!int x", "'x' cannot be read as !!int"),
        ("a: !!bool x", "'x' cannot be read as !!bool"),
        ('a: "\\ud800"', "cannot be read as !!str"),
        ("a: .nan", "found .nan, allowed: numbers that end"),
        ("a: 99999999999999999999", "more than 64 bits"),
        ("{[1]: 2}", "a key must be text"),
        ("a: &a [*a]", "f.yml:1: an alias inside the very value that it stands for"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_what_is_no_plain_yaml_is_refused_with_its_line(text: str, says: str) -> None:
    assert says in refused(text)


def test_aliases_of_aliases_do_not_unfold_without_end() -> None:
    bomb = (
        "a: &a ["
        + "x, " * 9
        + "x]\n"
        + "".join(
            f"{this}: &{this} [{', '.join(['*' + before] * 10)}]\n"
            for before, this in zip("abcdefgh", "bcdefghi", strict=True)
        )
    )
    assert f"more than {MAX_REPEATED} values" in refused(bomb)


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    (tmp_path / "latin.yml").write_bytes(b"a: \xe9\n")
    for name, says in (("latin.yml", "not UTF-8 text"), ("gone.yml", "No such file"), (".", "Is a directory")):
        with pytest.raises(FleetError, match=says):
            Source(tmp_path / name)


_yaml = st.text(alphabet="ab:-[]{}&*!|>'\"#%@<,? \n\t01.~", max_size=60)


@given(_yaml | st.text(max_size=100))
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(FleetError):
        Source(PATH, text)
