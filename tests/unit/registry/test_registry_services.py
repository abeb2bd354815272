"""What Consul says of an unknown check, in each version, and what its answers decode to."""

from __future__ import annotations

import json

import pytest

from outrider.errors import ConsulError
from outrider.registry import services
from outrider.registry.client import Reply, connect
from outrider.registry.services import CheckState, NotRegistered, Service


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (500, 'CheckID "outrider:A-1" does not have associated TTL'),
        (500, 'Unknown check "outrider:A-1"'),
        (404, 'Unknown check ID "outrider:A-1". Ensure that the check ID is passed, not the check name.'),
    ],
)
def test_an_unknown_check_must_be_registered_again(fake_consul, answers, status, text) -> None:
    client = connect(fake_consul(answers(status=status, body=text.encode())).address)
    with pytest.raises(NotRegistered):
        services.set_check(client, "outrider:A-1", "passing", "ok")
    with pytest.raises(NotRegistered):
        services.pass_check(client, "outrider:A-1")
    services.deregister(client, "A-1")


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (500, "rpc error: x509: certificate signed by unknown authority"),
        (500, "No cluster leader"),
        (403, "Permission denied"),
        (429, "too many requests"),
    ],
)
def test_any_other_failure_is_no_reason_to_register_again(fake_consul, answers, status, text) -> None:
    client = connect(fake_consul(answers(status=status, body=text.encode())).address)
    with pytest.raises(ConsulError) as caught:
        services.set_check(client, "outrider:A-1", "passing", "ok")
    assert not isinstance(caught.value, NotRegistered)
    with pytest.raises(ConsulError):
        services.deregister(client, "A-1")


def test_critical_checks_come_in_a_steady_order_whatever_fields_a_version_adds() -> None:
    items = [
        {"Node": "pc2", "CheckID": "outrider:B-1", "ServiceID": "B-1", "ServiceName": "B", "Status": "critical"},
        {
            "Node": "pc2",
            "CheckID": "serfHealth",
            "ServiceID": "",
            "Status": "critical",
            "Output": "gone",
            "Partition": "x",
        },
        {"Node": "mainpc", "CheckID": "outrider:A-1", "ServiceID": "A-1", "ServiceName": "A", "Status": "critical"},
    ]
    decoded = [services.critical(Reply(1, json.dumps(order).encode(), True, 0, 200)) for order in (items, items[::-1])]
    assert decoded[0] == decoded[1]
    assert decoded[0][0] == CheckState("mainpc", "outrider:A-1", "A-1", "A", "critical", "")
    assert [state.service_id for state in decoded[0]] == ["A-1", "B-1", ""]


def test_no_checks_and_no_body_are_nothing_critical() -> None:
    assert services.critical(Reply(1, b"[]", True, 0, 200)) == []
    assert services.critical(Reply(1, b"", True, 0, 404)) == []


def test_an_answer_that_is_not_consuls_is_an_error_and_not_all_well() -> None:
    with pytest.raises(ConsulError, match="not readable"):
        services.critical(Reply(1, b"{}", True, 0, 200))


@pytest.mark.parametrize("body", [b"null", b'{"Node": null, "Services": null}', b'{"Node": {}, "Services": {}}'])
def test_a_node_without_services_has_none(fake_consul, answers, body) -> None:
    assert services.node_services(connect(fake_consul(answers(body=body)).address), "pc2") == []


def test_a_registration_sends_only_what_the_oldest_version_knows(fake_consul, answers) -> None:
    fake = fake_consul(answers())
    services.register(connect(fake.address), Service("A-1", "A", "10.0.0.1", 7000, ("outrider",), {"host": "pc"}, "c"))
    assert json.loads(fake.asked[0].body) == {
        "ID": "A-1",
        "Name": "A",
        "Address": "10.0.0.1",
        "Port": 7000,
        "Tags": ["outrider"],
        "Meta": {"host": "pc"},
        "Check": {"CheckID": "c", "Name": "Outrider", "TTL": "24h", "Status": "critical"},
    }
