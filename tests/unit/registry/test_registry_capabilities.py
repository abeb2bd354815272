"""The table of versions."""

from __future__ import annotations

import pytest

from outrider.registry.capabilities import capabilities_of, parse_version


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("1.8.7", (1, 8, 7)),
        ("1.8.7+dfsg1", (1, 8, 7)),
        ("1.20.1+ent", (1, 20, 1)),
        ("v1.15.0-rc1", (1, 15, 0)),
        ("1.9", (1, 9, 0)),
        ("1.10.0dev", (1, 10, 0)),
    ],
)
def test_a_version_is_read_as_numbers(text, version) -> None:
    assert parse_version(text) == version


def test_what_is_no_version_is_refused() -> None:
    with pytest.raises(ValueError, match="no version"):
        parse_version("latest")


def test_the_version_tested_here() -> None:
    old = capabilities_of((1, 8, 7))
    assert old.unknown_check_status == 500
    assert (old.streaming, old.near_disables_streaming) == (False, False)
    assert old.token_param
    assert (old.acl.initial_management, old.acl.agent_recovery) == ("master", "agent_master")
    assert (old.tls_stanza, old.grpc_tls_port, old.transfer_leader, old.unknown_fields) == (False,) * 4


def test_a_current_version() -> None:
    new = capabilities_of((1, 20, 0))
    assert new.unknown_check_status == 404
    assert (new.streaming, new.near_disables_streaming) == (True, True)
    assert not new.token_param
    assert (new.acl.initial_management, new.acl.agent_recovery) == ("initial_management", "agent_recovery")
    assert (new.tls_stanza, new.grpc_tls_port, new.transfer_leader) == (True,) * 3


@pytest.mark.parametrize(
    ("field", "last_without", "first_with"),
    [
        ("streaming", (1, 9, 17), (1, 10, 0)),
        ("initial_management", (1, 10, 12), (1, 11, 0)),
        ("tls_stanza", (1, 11, 11), (1, 12, 0)),
        ("grpc_tls_port", (1, 13, 9), (1, 14, 0)),
    ],
)
def test_a_capability_comes_with_its_version(field, last_without, first_with) -> None:
    assert not getattr(capabilities_of(last_without), field)
    assert getattr(capabilities_of(first_with), field)


def test_a_token_in_the_url_goes_away() -> None:
    assert capabilities_of((1, 16, 9)).token_param
    assert not capabilities_of((1, 17, 0)).token_param


def test_documents_fit_the_transactions_of_every_version() -> None:
    from outrider.registry.kv import TXN_OPS

    assert all(capabilities_of((1, minor, 0)).max_txn_ops >= TXN_OPS for minor in range(7, 25))
