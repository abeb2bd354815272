"""A fleet file is refused whole, with every problem's place; a good one is merged from its levels of defaults."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from outrider.errors import FleetError
from outrider.fleet.load import load_fleet
from outrider.fleet.source import Source
from outrider.fleet.spec import Host

ROOT = Path(__file__).resolve().parents[3]
HOSTS = (Host("gpu1", cpu=4, memory_mib=1000), Host("gpu2", groups=("rack",)))


def write(folder: Path, agents: str, top: str = "fleet: lab\n") -> Path:
    """A fleet file with one group of agents."""
    path = folder / "fleet.yml"
    lines = "".join(f"      {line}\n" for line in agents.splitlines())
    path.write_text(f"{top}groups:\n  core:\n    agents:\n{lines}")
    return path


def refused(path: Path, hosts: tuple[Host, ...] | None = None) -> str:
    with pytest.raises(FleetError) as caught:
        load_fleet(path, hosts)
    return "\n".join(caught.value.problems)


@pytest.mark.parametrize(
    ("agents", "line", "says"),
    [
        ("A: {module: a, portz: {main: 1}}", 5, "unknown key `portz`; did you mean `ports`?"),
        (
            "A: {module: a, ports: {main: abc}}",
            5,
            "found 'abc' (text), allowed: a whole number from 1 to 65535",
        ),
        ("A: {module: a, ports: {main: 70000}}", 5, "found 70000"),
        ("A: {module: a, mode: twice}", 5, "allowed: replicated, singleton"),
        ("A: {module: a, resources: {cpu: 0}}", 5, "a number above 0"),
        ("A: {module: a, state: 'yes'}", 5, "allowed: true or false"),
        ("A: {module: a}\nB: {module: b, needs: [AA]}", 6, "needs `AA`, which no agent is called; did you mean `A`?"),
        ("A: {}", 5, "exactly one of `command` and `module`"),
        ("A: {module: a, command: [b]}", 5, "exactly one of `command` and `module`"),
        ("A: {module: a}\nA: {module: b}", 6, "given twice, first in line 5"),
        ("A_b: {module: a}\nA-b: {module: b}", 6, "would be one service in Consul"),
        ("A: {module: a, mode: singleton, count: 2}", 5, "a singleton has no count"),
        ("A: {module: a, code: {path: ., git: x}}", 5, "exactly one of path, wheel and git"),
        ("A: {module: a, code: {path: nowhere}}", 5, "is not there"),
        (
            "A: {module: a, probes: [{type: http, port: web}], ports: {main: 1}}",
            5,
            "asks the port `web`",
        ),
    ],
)
def test_a_mistake_is_named_with_its_line(tmp_path: Path, agents: str, line: int, says: str) -> None:
    path = write(tmp_path, agents)
    report = refused(path)
    assert f"{path}:{line}:" in report
    assert says in report


def test_all_mistakes_are_found_at_once(tmp_path: Path) -> None:
    report = refused(write(tmp_path, "A: {module: a, portz: {}, mode: x}\nB: {module: 3}"))
    assert len(report.splitlines()) == 3


@pytest.mark.parametrize(
    ("agents", "says"),
    [
        ("A: {module: a, hosts: [gpu3]}", "no host or group `gpu3` in the inventory; did you mean"),
        ("A: {module: a, hosts: [gpu1], resources: {memory_mib: 2000}}", "1000 MiB of memory left, wanted 2000"),
        ("A: {module: a, labels: {disk: ssd}}", "label disk is missing, wanted ssd"),
        ("A: {module: a, resources: {vram_mib: 10}}", "0 MiB left on its emptiest GPU"),
        (
            "A: {module: a, hosts: [gpu1], ports: {main: 80}}\nB: {module: b, hosts: [gpu1], ports: {main: 80}}",
            "port 80 on gpu1 is already that of A.ports.main",
        ),
    ],
)
def test_what_no_host_can_take_is_refused(tmp_path: Path, agents: str, says: str) -> None:
    assert says in refused(write(tmp_path, agents), HOSTS)


def test_yaml_mistakes_and_empty_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "fleet.yml"
    path.write_text("fleet: lab\ngroups: {core: [\n")
    assert f"{path}:3:" in refused(path)
    path.write_text("")
    assert "the file is empty" in refused(path)
    path.write_text("fleet: lab\ngroups: {}\n")
    assert "the fleet has no agents" in refused(path)
    path.write_text("fleet: lab\ngroups: !!python/object:os.system {}\n")
    assert "allowed" in refused(path)
    assert "No such file" in refused(tmp_path / "missing.yml")


def test_defaults_are_merged_from_fleet_to_group_to_agent(tmp_path: Path) -> None:
    path = tmp_path / "fleet.yml"
    path.write_text(
        "fleet: lab\n"
        "defaults: {module: base, environment: {A: '1', B: '1'}, tags: [x]}\n"
        "groups:\n  core:\n    defaults: {environment: {B: '2', C: '2'}}\n"
        "    agents:\n      One: {environment: {C: '3'}, tags: [y]}\n      Two: {command: [run]}\n"
    )
    fleet = load_fleet(path)
    assert fleet.agents["One"].environment == {"A": "1", "B": "2", "C": "3"}
    assert fleet.agents["One"].tags == ("y",)
    assert fleet.agents["One"].module == "base"
    assert fleet.agents["Two"].module is None


def test_the_reference_fleet_is_what_it_is_known_to_be() -> None:
    fleet = load_fleet(ROOT / "inventories/reference/fleet.yml")
    assert len(fleet.agents) == 76
    assert sum(agent.instance_count() for agent in fleet.agents.values()) == 77
    assert sum(bool(agent.model) for agent in fleet.agents.values()) == 15


@given(st.text(max_size=200))
def test_free_text_is_refused_or_read_but_never_crashes(text: str) -> None:
    with contextlib.suppress(FleetError):
        Source(Path("free.yml"), text)


KEYS = ["fleet", "groups", "agents", "defaults", "A", "module", "ports", "needs", "hosts", "probes", "main"]
_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=12,
)


@given(_values)
def test_any_shape_is_refused_or_read_but_never_crashes(
    tmp_path_factory: pytest.TempPathFactory, value: object
) -> None:

    path = tmp_path_factory.mktemp("shape") / "fleet.yml"
    path.write_text(yaml.safe_dump(value))
    with pytest.raises(FleetError) as caught:
        load_fleet(path)
    assert all(str(path) in problem for problem in caught.value.problems)
