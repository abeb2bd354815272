"""Start-up files in the wild: what can be read is carried, the rest is reported, a stranger is refused by name."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from outrider.errors import FleetError
from outrider.fleet.document import document
from outrider.fleet.importer import import_files
from outrider.fleet.load import load_fleet

GROUPED = """
global_settings: {environment: {LOG_LEVEL: INFO, HERE: "${PWD}/x"}, resource_limits: {cpu_percent: 80, memory_mb: 64}}
agent_groups:
  core:
    A: {script_path: a.py, port: "${PORT_OFFSET}+7000", health_check_port: "8000", dependencies: []}
    B: {script_path: b.py, port: 7001, health_check_port: 8001, dependencies: [A, C], colour: red}
    C: {script_path: c.py, port: x, required: false}
    nested:
      D: {script_path: d.py, port: "${PORT_OFFSET:-0} + 7003", health_check_port: 8003}
"""
LISTED = """
pc2_services:
  - {name: A, script_path: a.py, port: 9000, health_check_port: 9001, dependencies: [E]}
  # - {
  #     name: Old,
  #   }
  - {name: E, script_path: e.py, port: 9002, health_check_port: 9003}
"""


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / "main_startup.yaml", tmp_path / "pc2_startup.yaml"]
    paths[0].write_text(GROUPED)
    paths[1].write_text(LISTED)
    return paths


def test_both_dialects_are_read(files: list[Path]) -> None:
    found = import_files(files, port_offset=100)
    assert found.hosts == ("main", "pc2")
    ports = {(a.host, a.name): (a.port, a.health_port) for a in found.agents}
    assert ports[("main", "A")] == (7100, 8000)
    assert ports[("main", "C")] == (None, None)
    assert ports[("main", "D")] == (7103, 8003)
    assert len(found.agents) == 6
    said = "\n".join(found.warnings)
    assert "`colour` is not known here; kept under config" in said
    assert "'x' is no port" in said
    assert "commented out and not imported: Old" in said


def test_one_name_on_two_hosts_is_one_agent_and_the_result_is_valid(files: list[Path], tmp_path: Path) -> None:
    made = document(import_files(files), "wild")
    made["defaults"]["module"] = "x"
    out = tmp_path / "fleet.yml"
    out.write_text(yaml.safe_dump(made))
    fleet = load_fleet(out)
    assert fleet.agents["A"].mode == "replicated"
    assert fleet.agents["A"].on_host()["pc2"].ports == {"main": 9000, "health": 9001}
    assert fleet.agents["B"].mode == "singleton"
    assert [need.required for need in fleet.agents["B"].need_list()] == [True, False]
    assert fleet.agents["B"].environment == {"LOG_LEVEL": "INFO"}
    assert fleet.agents["B"].resources.memory_mib == 64


def test_a_stranger_is_refused_by_what_it_has(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("services: {web: {image: nginx}}\n")
    with pytest.raises(FleetError, match="top-level keys are `services`; known: a mapping `agent_groups`"):
        import_files([path])


_free = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["agent_groups", "a", "name", "script_path", "port", "dependencies", "config",
                                       "global_settings", "health_checks", "required"]), inner, max_size=5),
    max_leaves=15,
)  # fmt: skip


@given(_free)
def test_any_file_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, value: object) -> None:
    path = tmp_path_factory.mktemp("free") / "x.yaml"
    path.write_text(yaml.safe_dump(value))
    with contextlib.suppress(FleetError):
        document(import_files([path]), "free")
