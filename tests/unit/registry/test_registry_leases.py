"""How leases are confirmed: by a leader that has made sure that it leads, and by our session's lock alone."""

from __future__ import annotations

import json

from outrider.registry import leases
from outrider.registry.client import connect


def test_a_lease_is_confirmed_by_a_consistent_question_alone(fake_consul, answers) -> None:
    consul = fake_consul(answers(body=b'{"Results": []}'))
    found = leases.confirm(connect(consul.address), ["A", "B"], "s1", timeout_s=1.0)
    assert found.held == {"A", "B"}
    (asked,) = (each for each in consul.asked if each.target.startswith("/v1/txn"))
    assert "consistent" in asked.params
    checks = [operation["KV"] for operation in json.loads(asked.body)]
    assert {check["Verb"] for check in checks} == {"check-session"}
    assert {check["Session"] for check in checks} == {"s1"}


def test_a_lock_that_is_not_ours_is_lost_and_the_others_are_not(fake_consul, answers) -> None:
    body = b'{"Errors": [{"OpIndex": 1, "What": "it is locked by s2"}]}'
    consul = fake_consul(answers(status=409, body=body))
    found = leases.confirm(connect(consul.address), ["A", "B"], "s1", timeout_s=1.0)
    assert (found.held, found.lost) == ({"A"}, {"B": "it is locked by s2"})
