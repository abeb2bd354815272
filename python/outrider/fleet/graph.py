"""The graph of needs: cycles, which are legal, and waves to start in. Pure, and linear in agents and needs."""

from __future__ import annotations

from outrider.fleet.spec import Fleet


def edges(fleet: Fleet) -> dict[str, tuple[str, ...]]:
    """Agent to the declared agents it needs; what differs on one host counts too."""
    found = {}
    for name, agent in fleet.agents.items():
        needs = [need.agent for need in agent.need_list()]
        for there in agent.on_host().values():
            needs += [need if isinstance(need, str) else need.agent for need in there.needs or ()]
        found[name] = tuple(dict.fromkeys(need for need in needs if need in fleet.agents))
    return found


def components(graph: dict[str, tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Strongly connected components, needs before what needs them.

    Tarjan, "Depth-first search and linear graph algorithms" (1972), with a stack of its own instead of recursion.
    """
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    open_: dict[str, None] = {}
    found: list[tuple[str, ...]] = []
    for root in graph:
        work = [(root, iter(graph[root]))] if root not in order else []
        while work:
            name, needs = work[-1]
            if name not in order:
                order[name] = low[name] = len(order)
                open_[name] = None
            for need in needs:
                if need not in order:
                    work.append((need, iter(graph[need])))
                    break
                if need in open_:
                    low[name] = min(low[name], order[need])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[name])
                if low[name] == order[name]:
                    found.append(_take(open_, name))
    return found


def _take(open_: dict[str, None], root: str) -> tuple[str, ...]:
    members = []
    while True:
        member, _ = open_.popitem()
        members.append(member)
        if member == root:
            return tuple(sorted(members))


def cycles(fleet: Fleet) -> list[tuple[str, ...]]:
    """Groups of agents that need each other, directly or not. They are started together."""
    graph = edges(fleet)
    return [group for group in components(graph) if len(group) > 1 or group[0] in graph[group[0]]]


def waves(fleet: Fleet) -> list[tuple[str, ...]]:
    """Agents in the order to start them: each wave needs only earlier ones, a cycle lies in one wave."""
    graph = edges(fleet)
    depth: dict[str, int] = {}
    found: dict[int, list[str]] = {}
    for group in components(graph):
        outside = {need for name in group for need in graph[name]}.difference(group)
        wave = max((depth[need] + 1 for need in outside), default=0)
        depth.update(dict.fromkeys(group, wave))
        found.setdefault(wave, []).extend(group)
    return [tuple(sorted(found[wave])) for wave in sorted(found)]


def dependants(fleet: Fleet, name: str) -> tuple[str, ...]:
    """Agents that need `name` directly."""
    return tuple(sorted(agent for agent, needs in edges(fleet).items() if name in needs))


def dot(fleet: Fleet) -> str:
    """The graph for Graphviz: arrows point to what is needed, cycles are red, optional needs dashed."""
    cyclic = {name: cycle for cycle in cycles(fleet) for name in cycle}
    lines = ["digraph fleet {", "  rankdir=LR;", "  node [shape=box];"]
    for name, needs in edges(fleet).items():
        lines.append(f'  "{name}"{" [color=red]" if name in cyclic else ""};')
        optional = {need.agent for need in fleet.agents[name].need_list() if not need.required}
        for need in needs:
            style = ["color=red"] if cyclic.get(name, ()) and need in cyclic[name] else []
            style += ["style=dashed"] if need in optional else []
            lines.append(f'  "{name}" -> "{need}"{" [" + ", ".join(style) + "]" if style else ""};')
    return "\n".join([*lines, "}"])
