"""A fleet file becomes one plain document, and its code sources are listed once each."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from outrider.errors import FleetError
from outrider.fleet.spec import Code, Host
from outrider.migration.compile import (
    Definition,
    code_sources,
    compile_fleet,
    read_definition,
    read_hosts,
    source_key,
)

FILE = """
fleet: small
defaults: {command: [run], code: {path: src}}
groups:
  all:
    agents:
      A: {hosts: [one]}
      B: {hosts: [one], needs: [A], start_timeout_s: 40}
      C: {hosts: [one], code: {path: src, sha256: "%s"}}
"""


@pytest.fixture
def fleet_file(tmp_path: Path) -> Path:
    (tmp_path / "src").mkdir()
    path = tmp_path / "fleet.yml"
    path.write_text(FILE % ("ab" * 32))
    return path


def test_a_definition_survives_json(fleet_file: Path) -> None:
    found = compile_fleet(fleet_file, [{"name": "one"}])
    assert read_definition(json.loads(msgspec.json.encode(found))) == found
    assert found.groups == {"all": ("A", "B", "C")}


def test_the_same_code_is_one_source(fleet_file: Path) -> None:
    sources = code_sources(compile_fleet(fleet_file, [{"name": "one"}]), fleet_file.parent)
    assert [source.key for source in sources] == ["path:src", "path:src#" + "ab" * 32]
    assert {source.base for source in sources} == {str(fleet_file.parent)}
    assert {source.type for source in sources} == {"path"}


@pytest.mark.parametrize(
    ("code", "key"),
    [
        (Code(path="src"), "path:src"),
        (Code(wheel="a.whl"), "wheel:a.whl"),
        (Code(git="https://host/r.git", ref="v1"), "git:https://host/r.git@v1"),
    ],
)
def test_a_source_is_named_by_what_it_is(code: Code, key: str) -> None:
    assert source_key(code) == key


def test_numbers_of_the_inventory_may_be_text() -> None:
    raw = {"name": "one", "cpu": "16", "memory_mib": "1024", "gpus_mib": ["24576"], "labels": {}, "address": None}
    assert read_hosts([raw]) == [Host("one", cpu=16.0, memory_mib=1024, gpus_mib=(24576,))]


def test_every_wrong_host_is_named() -> None:
    with pytest.raises(FleetError) as error:
        read_hosts([{"name": "one", "cpu": "many"}, {"name": "two", "gpus_mib": 5}])
    assert [problem.split(":")[0] for problem in error.value.problems] == ["host one", "host two"]


def test_what_is_no_definition_is_refused() -> None:
    with pytest.raises(FleetError, match="not a compiled fleet"):
        read_definition({"agents": []})
    assert read_definition({"name": "x", "agents": {}}) == Definition("x", {})
