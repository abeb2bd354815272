"""A report is told in datagrams that are taken, and nothing of it is lost."""

import msgspec

from outrider.calls.background import MOST_BYTES, _packed
from outrider.calls.reports import CircuitReport, ProcessReport, TallyReport


def test_a_large_report_comes_in_parts_and_no_agent_is_torn() -> None:
    agents = [f"Agent{number}" for number in range(200)]
    tallies = tuple(TallyReport(a, f"method{m}", {"ok": m}, (0,) * 18, 1.0, 0) for a in agents for m in range(10))
    circuits = tuple(CircuitReport(a, f"{a}-{n}", "closed", "", 0, 0, 1.0) for a in agents for n in range(5))
    datagrams = _packed(ProcessReport("me", 1, tallies, circuits, ()))
    assert len(datagrams) > 1
    assert max(map(len, datagrams)) <= MOST_BYTES
    parts = [msgspec.msgpack.decode(data, type=ProcessReport) for data in datagrams]
    assert sorted(t.agent + t.method for p in parts for t in p.tallies) == sorted(t.agent + t.method for t in tallies)
    for agent in agents:
        assert sum(any(c.agent == agent for c in part.circuits) for part in parts) == 1
