"""A fleet file is refused whole, with every problem's place; a good one is merged from its levels of defaults."""

from __future__ import annotations

import contextlib
from pathlib import Path

import msgspec
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from outrider.errors import FleetError
from outrider.fleet.graph import cycles, edges
from outrider.fleet.inventory import open_inventory
from outrider.fleet.load import load_fleet
from outrider.fleet.placement import place
from outrider.fleet.source import Source
from outrider.fleet.spec import Fleet, Host

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
        ("A: {module: a, needs: [{required: false}]}", 5, "needs.0: `agent` is missing"),
        ("A: {module: a, environment: {PORT: 80}}", 5, "found 80 (a number), allowed: text (write it in quotes)"),
        ("A: {module: a, environment: {a b: x}}", 5, "is no variable name"),
        ("A: {module: a, config: {1: x}}", 5, "found the key 1, allowed: text"),
        ("A: {module: a, config: {x: [{null: 1}]}}", 5, "found the key None, allowed: text"),
        ("A: {module: a, ports: {main: 80, health: 80}}", 5, "port 80 is already `main` of this agent"),
        ("A:\n  module: a\n  hosts: {x: {needs: [B]}}", 7, "needs `B`, which no agent is called"),
        ("A: {module: a, standbys: 1}", 5, "only a singleton has standbys"),
        ("A: {command: []}", 5, "found no program"),
        ("A: {command: [a], args: [b]}", 5, "are those of a module"),
        ("A: {module: a, code: {git: x}}", 5, "git needs `ref`"),
        ("A: {module: a, code: {wheel: .}}", 5, "is no file"),
        ("A: {module: a, probes: [{type: command}]}", 5, "a command probe needs `command`"),
        ("A: {module: a, probes: [{type: http, interval_s: .inf}]}", 5, "allowed: numbers that end"),
        ("A: 3", 5, "found 3 (a number), allowed: a mapping of"),
        ("Consul: {module: a}", 5, "the service of Consul's own servers"),
        ("-A: {module: a}", 5, "is no agent name"),
        ("7: {module: a}", 5, "is no agent name"),
    ],
)
def test_a_mistake_is_named_with_its_line(tmp_path: Path, agents: str, line: int, says: str) -> None:
    path = write(tmp_path, agents)
    report = refused(path)
    assert f"{path}:{line}:" in report
    assert says in report


def test_the_same_agent_in_two_groups_is_named_with_both_lines(tmp_path: Path) -> None:
    path = tmp_path / "fleet.yml"
    path.write_text("fleet: lab\ngroups:\n  a: {agents: {X: {module: x}}}\n  b: {agents: {X: {module: x}}}\n")
    assert refused(path) == f"{path}:4: groups.b.agents.X: agent X is already in line 3"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("fleet: lab\ndefaults: []\ngroups: {}\n", "2: defaults: found list, allowed: a mapping"),
        ("fleet: lab\ngroups: 0\n", "2: groups: found int, allowed: a mapping"),
        ("fleet: lab\ngroups: {a: {agents: [A]}}\n", "2: groups.a.agents: found list, allowed: a mapping"),
        ("fleet: lab\ngroups: {a: {agent: {}}}\n", "2: groups.a.agent: unknown key `agent`; did you mean `agents`?"),
        ("fleet: lab\n", "`groups` is missing"),
        ("groups: {}\n", "`fleet` is missing"),
        ("flet: lab\ngroups: {}\n", "1: flet: unknown key `flet`; did you mean `fleet`?"),
        ("fleet: lab\ngroups: {1: {agents: {A: {module: a}}}}\n", "found the name 1, allowed: text"),
        ("just text\n", "found str, allowed: a mapping of fleet, defaults, groups"),
    ],
)
def test_a_wrong_frame_is_named(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "fleet.yml"
    path.write_text(text)
    assert says in refused(path)


def test_all_mistakes_of_meaning_are_found_at_once(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "A: {module: a, hosts: [gpu3]}\nB: {module: b, needs: [X]}\n"
        "C: {module: c, resources: {cpu: 99}, hosts: [gpu1]}",
    )
    assert [line.split(":")[1] for line in refused(path, HOSTS).splitlines()] == ["6", "5", "7"]


def test_a_secret_that_cannot_be_read_is_named_when_asked(tmp_path: Path) -> None:
    (tmp_path / "there").write_text("x")
    path = write(tmp_path, f"A:\n  module: a\n  secrets: {{KEY: {tmp_path}/gone, OK: {tmp_path}/there}}")
    assert "A" in load_fleet(path).agents
    with pytest.raises(FleetError) as caught:
        load_fleet(path, local_secrets=True)
    assert caught.value.problems == [
        f"{path}:7: groups.core.agents.A.secrets.KEY: found {tmp_path}/gone, which is no file on this machine"
    ]


def test_one_mistake_in_two_places_is_told_once(tmp_path: Path) -> None:
    assert len(refused(write(tmp_path, "A: {module: a, hosts: [x, y], needs: [B]}")).splitlines()) == 1


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
    assert sum(len(needs) for needs in edges(fleet).values()) == 140
    assert cycles(fleet) == [("StreamingInterruptHandler", "StreamingTTSAgent", "TTSService")]
    there = [entry for agent in fleet.agents.values() for entry in agent.on_host()]
    assert (there.count("mainpc"), there.count("pc2")) == (54, 23)
    assert all(agent.state and agent.module in ("sample_agent", "model_agent") for agent in fleet.agents.values())


@pytest.mark.parametrize("inventory", ["reference", "local"])
def test_the_reference_fleet_has_a_place_in_both_inventories(inventory: str) -> None:
    opened = open_inventory(ROOT / "inventories" / inventory, None)
    assert opened.hosts
    fleet = load_fleet(opened.fleet_file, opened.hosts)
    assert sum(len(slots) for slots in place(fleet, opened.hosts, {}).values()) == 77
    assert bool(opened.warnings) == (inventory == "local")


@given(st.text(max_size=200))
def test_free_text_is_refused_or_read_but_never_crashes(text: str) -> None:
    with contextlib.suppress(FleetError):
        Source(Path("free.yml"), text)


AGENT_KEYS = ["module", "command", "ports", "needs", "hosts", "probes", "resources", "config", "code", "mode", "count"]
_parts = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.floats(),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(["main", "agent", "type", "port", "path", "x"]) | st.integers(), inner, max_size=3
        )
    ),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(AGENT_KEYS), _parts, max_size=5))
def test_any_agent_is_refused_or_read_and_is_then_plain_json(
    tmp_path_factory: pytest.TempPathFactory, agent: dict[str, object]
) -> None:
    path = tmp_path_factory.mktemp("agent") / "fleet.yml"
    path.write_text(yaml.safe_dump({"fleet": "lab", "groups": {"g": {"agents": {"A": {"module": "m"} | agent}}}}))
    with contextlib.suppress(FleetError):
        fleet = load_fleet(path, HOSTS)
        assert msgspec.json.decode(msgspec.json.encode(fleet), type=Fleet) == fleet


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
