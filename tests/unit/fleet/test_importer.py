"""Start-up files in the wild: what can be read is carried, the rest is reported, a stranger is refused by name."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from outrider.errors import FleetError
from outrider.fleet.document import document, to_yaml
from outrider.fleet.importer import Imported, import_files
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


def read(folder: Path, text: str, name: str = "x.yaml", **more: Any) -> Imported:
    path = folder / name
    path.write_text(text)
    return import_files([path], **more)


@pytest.mark.parametrize(
    "text",
    [
        "agent_groups: {core: {agents: {A: {script_path: a.py}}}}",
        "agent_groups: {core: [{name: A, script_path: a.py}]}",
        "agent_groups: [{name: core, agents: [{name: A, script_path: a.py}]}]",
        "agent_groups: {outer: {core: {A: {script_path: a.py}}}}",
        "agent_groups: {core: {A: {port: 7000}}}",
        "core: {A: {script_path: a.py}}",
        "core: [{name: A, script_path: a.py}, 3, null, x]",
        "anything: {core: {services: [{name: A, script_path: a.py}]}}",
    ],
)
def test_groups_of_unusual_shape_are_read(tmp_path: Path, text: str) -> None:
    assert [(agent.name, agent.group) for agent in read(tmp_path, text).agents] == [("A", "core")]


def test_a_bare_list_of_agents_is_read(tmp_path: Path) -> None:
    found = read(tmp_path, "[{name: A, script_path: a.py}, {name: B, port: 7000}, {name: C}]", "gpu9-services.yaml")
    assert [agent.name for agent in found.agents] == ["A", "B"]
    assert found.hosts == ("gpu9",)


@pytest.mark.parametrize(
    ("port", "number"),
    [
        ("7000", 7000),
        ("'7000'", 7000),
        ("' 7000 '", 7000),
        ("'${PORT_OFFSET}+7000'", 7100),
        ("'${PORT_OFFSET} + 7000'", 7100),
        ("'${PORT_OFFSET:-0}+7000'", 7100),
        ("'$PORT_OFFSET+7000'", 7100),
        ("'${OTHER}+7000'", None),
        ("70000", None),
        ("-1", None),
        ("true", None),
        ("[7000]", None),
        ("null", None),
    ],
)
def test_ports_are_read_as_they_are_written_in_the_wild(tmp_path: Path, port: str, number: int | None) -> None:
    text = f"g: {{A: {{script_path: a.py, health_check_port: 1, port: {port}}}}}"
    found = read(tmp_path, text, port_offset=100)
    assert found.agents[0].port == number
    assert bool(found.warnings) == (number is None)


def test_an_offset_of_the_file_counts_unless_one_is_given(tmp_path: Path) -> None:
    text = "g: {A: {script_path: a.py, port: '${PORT_OFFSET:-50}+7000', config: {redis: '${PORT_OFFSET}+6379'}}}"
    assert read(tmp_path, text).agents[0].port == 7050
    given = read(tmp_path, text, port_offset=1000).agents[0]
    assert (given.port, given.config) == (8000, {"redis": 7379})


def test_what_is_odd_is_carried_as_far_as_it_goes_and_reported(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        """
global_settings:
  environment: {A: 1, B: true, C: "${X}", PYTHONPATH: /app, D: [1]}
  resource_limits: {cpu_percent: "50", memory_mb: lots, disks: 3}
  health_checks: {interval_seconds: 10, retries: 2}
  colour: red
error_port: 7150
core:
  My Agent: {script_path: a.py, port: 1, health_check_port: 2, dependencies: "B, C, B", required: "no", host: 10.1.1.1}
  B: {script_path: b.py, port: 3, health_check_port: 4, dependencies: 5, config: 6}
  Empty:
""",
    )
    mine, other = found.agents
    assert (mine.name, mine.needs, mine.required) == ("My-Agent", ("B", "C"), False)
    assert other.config == {"config": 6}
    settings = found.settings["x"]
    assert settings.environment == {"A": "1", "B": "true"}
    assert (settings.cpu, settings.memory_mib, settings.interval_s, settings.failures) == (0.5, None, 10, 2)
    said = "\n".join(found.warnings)
    for text in (
        "checks every 10 s find a hang after 20 s: not carried",
        "C = ${X} is for the old layout",
        "PYTHONPATH = /app is for the old layout",
        "`D` = [1] is no variable",
        "'lots' is no number from 1",
        "`disks` is not known here",
        "`colour` is not known here",
        "`error_port` is not known here and is not imported",
        "`My Agent` is no agent name here; it is called My-Agent",
        "My Agent: the address 10.1.1.1 is not carried",
        "found 5, expected a list of names",
        "B: found 6, expected a mapping",
        "`Empty` among agents is none: found nothing",
        "My-Agent needs C, which is in none of the files; left out",
    ):
        assert text in said
    assert len(found.warnings) == 14


def test_intervals_are_carried_only_when_asked(tmp_path: Path) -> None:
    found = read(tmp_path, "global_settings: {health_checks: {interval_seconds: 30, timeout_seconds: 10, retries: 3}}\n"
                           "g: {A: {script_path: a.py, port: 1, health_check_port: 2}}")  # fmt: skip
    assert "probes" not in document(found, "x")["groups"]["g"]["agents"]["A"]
    kept = document(found, "x", keep_intervals=True)["groups"]["g"]["agents"]["A"]["probes"]
    assert kept == [{"type": "http", "interval_s": 30, "timeout_s": 10, "failures": 3}]


def test_hosts_are_named_by_the_file_unless_told(tmp_path: Path) -> None:
    path = tmp_path / "pc2_startup.yaml"
    path.write_text("g: {A: {script_path: a.py}}")
    assert import_files([path]).hosts == ("pc2",)
    assert import_files([path], names={path: "gpu9"}).hosts == ("gpu9",)


def test_two_files_of_one_host_are_one_and_a_name_there_twice_is_reported(tmp_path: Path) -> None:
    paths = [tmp_path / "pc2_a.yaml", tmp_path / "pc2_b.yaml"]
    for path in paths:
        path.write_text("g: {A: {script_path: a.py, port: 1, health_check_port: 2}}")
    found = import_files(paths)
    assert (len(found.agents), found.hosts) == (1, ("pc2",))
    assert found.warnings == ("pc2: A is there twice; the first one counts",)


def test_what_agents_share_is_written_once(files: list[Path], tmp_path: Path) -> None:
    made = document(import_files(files), "wild")
    assert made["defaults"] == {"mode": "singleton"}
    core = made["groups"]["core"]
    assert core["defaults"]["hosts"] == ["main"]
    assert core["defaults"]["resources"] == {"cpu": 0.8, "memory_mib": 64}
    assert "hosts" not in core["agents"]["B"]
    text = to_yaml(made)
    assert "ports: {main: 7000, health: 8000}" in text
    assert yaml.safe_load(text) == made


_free = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**6), 10**6) | st.text(max_size=6),
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
        made = document(import_files([path]), "free")
        made["defaults"]["module"] = "x"
        path.write_text(to_yaml(made))
        load_fleet(path)


_settings = st.fixed_dictionaries(
    {},
    optional={
        "environment": _free | st.dictionaries(st.text(max_size=3), _free, max_size=3),
        "resource_limits": _free | st.dictionaries(st.sampled_from(["cpu_percent", "memory_mb"]), _free, max_size=2),
        "health_checks": _free | st.dictionaries(st.sampled_from(["interval_seconds", "retries"]), _free, max_size=2),
    },
)
_item = st.dictionaries(
    st.sampled_from(["name", "port", "health_check_port", "dependencies", "required", "config", "host", "environment"]),
    _free,
    max_size=5,
)


@given(_free | _settings, st.dictionaries(st.text(max_size=4), _item, min_size=1, max_size=3))
def test_agents_with_anything_in_them_are_read(
    tmp_path_factory: pytest.TempPathFactory, settings: object, agents: dict[str, dict[str, object]]
) -> None:
    path = tmp_path_factory.mktemp("odd") / "x.yaml"
    group = {name: {"script_path": "a.py", **item} for name, item in agents.items()}
    path.write_text(yaml.safe_dump({"global_settings": settings, "agent_groups": {"g": group}}))
    made = document(import_files([path]), "free", keep_intervals=True)
    made["defaults"]["module"] = "x"
    path.write_text(to_yaml(made))
    # What is left is for a person to decide: agents with one port, or names that Consul cannot tell apart.
    kinds = ("is already", "would be one service", "Consul's own servers")
    assert [problem for problem in problems_of(path) if not any(kind in problem for kind in kinds)] == []


def test_what_only_some_of_a_group_have_is_not_given_to_all(tmp_path: Path) -> None:
    first, second = tmp_path / "main.yaml", tmp_path / "pc2.yaml"
    first.write_text("global_settings: {environment: {E: 1}}\n"
                     "g: {A: {script_path: a, port: 1}, B: {script_path: b, port: 2}}")  # fmt: skip
    second.write_text("global_settings: {environment: {F: 2}}\n"
                      "g: {C: {script_path: c, port: 1}, D: {script_path: d, port: 2}}")  # fmt: skip
    made = document(import_files([first, second]), "x")
    made["defaults"]["module"] = "m"
    out = tmp_path / "fleet.yml"
    out.write_text(to_yaml(made))
    fleet = load_fleet(out)
    assert [agent.environment for agent in fleet.agents.values()] == [{"E": "1"}, {"E": "1"}, {"F": "2"}, {"F": "2"}]
    assert [list(agent.on_host()) for agent in fleet.agents.values()] == [["main"], ["main"], ["pc2"], ["pc2"]]


def problems_of(path: Path) -> list[str]:
    try:
        load_fleet(path)
    except FleetError as error:
        return error.problems
    return []
