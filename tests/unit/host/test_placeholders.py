"""Placeholders in commands."""

from __future__ import annotations

import pytest

from outrider.errors import HostError
from outrider.host.placeholders import fill, main_port

PORTS = {"main": 7200, "health": 8200}


def test_known_names_are_filled_and_other_braces_stay() -> None:
    words = ("--port={port}", "{ports.health}", "{address}:{port}", '{"a": {"b": 1}}', "{unknown}", "{}", "{state}")
    filled = fill(words, PORTS, {"address": "10.0.0.1"})
    assert filled == ("--port=7200", "8200", "10.0.0.1:7200", '{"a": {"b": 1}}', "{unknown}", "{}", "{state}")


def test_what_was_filled_in_is_not_filled_again() -> None:
    assert fill(("{state}",), PORTS, {"state": "/a/{port}"}) == ("/a/{port}",)


def test_a_port_that_is_not_there_is_named() -> None:
    with pytest.raises(HostError) as caught:
        fill(("--metrics={ports.metrics}",), PORTS, {})
    assert "{ports.metrics}" in caught.value.message
    assert "main, health" in caught.value.hint


def test_the_main_port_is_main_or_the_first() -> None:
    assert main_port({"health": 1, "main": 2}) == 2
    assert main_port({"rpc": 3, "health": 1}) == 3
    assert main_port({}) == 0
