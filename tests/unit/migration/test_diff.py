"""Differences are readable, and values that look secret are not in them."""

from __future__ import annotations

import pytest

from outrider.fleet.spec import Agent
from outrider.migration.changes import AgentChange, Documents
from outrider.migration.diff import shown, summary
from outrider.registry.layout import AgentDoc, Placed, PlacementDoc


def docs(**environment: str) -> Documents:
    agent = Agent(command=("run",), environment=environment, secrets={"DB_PASSWORD": "/etc/secret"})
    return Documents(AgentDoc("a", "test", agent, "v"), PlacementDoc("a", (Placed("a-1", "one", "v"),)))


@pytest.mark.parametrize("name", ["API_KEY", "OPENAI_TOKEN", "db_password", "SecretThing", "KEY", "AWS_CREDENTIALS"])
def test_a_secret_looking_value_is_hidden(name: str) -> None:
    change = AgentChange("a", "changed", ("configuration",), docs(**{name: "hunter2"}), docs(**{name: "hunter3"}))
    (text,) = shown([change])
    assert "hunter" not in text.before + text.after
    assert f"{name}: (hidden)" in text.after


@pytest.mark.parametrize("name", ["PORT", "KEYBOARD", "MONKEY_COUNT", "LOG_LEVEL"])
def test_other_values_are_shown(name: str) -> None:
    (text,) = shown([AgentChange("a", "added", (), Documents(), docs(**{name: "plain"}))])
    assert f"{name}: plain" in text.after
    assert text.before == ""


def test_the_file_of_a_secret_is_shown() -> None:
    (text,) = shown([AgentChange("a", "added", (), Documents(), docs())])
    assert "DB_PASSWORD: /etc/secret" in text.after


def test_what_is_unchanged_is_not_shown() -> None:
    assert shown([AgentChange("a", "unchanged", (), docs(), docs())]) == []


def test_a_change_is_one_line() -> None:
    assert summary(AgentChange("a", "added", (), Documents(), docs())) == "add a: a-1 on one"
    assert summary(AgentChange("a", "removed", (), docs(), Documents())) == "remove a: drain a-1"
    changed = AgentChange("a", "changed", ("release",), docs(), docs(), ("a-1",))
    assert summary(changed) == "change a (release): restart a-1"
