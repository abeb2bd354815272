"""Every role's argument specs and defaults name the same variables, with the role's prefix."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

ROLES = sorted(path for path in (Path(__file__).parents[3] / "roles").iterdir() if (path / "tasks").is_dir())


def options(role: Path) -> dict[str, Any]:
    specs = yaml.safe_load((role / "meta" / "argument_specs.yml").read_text())["argument_specs"]
    return {name: option for entry in specs.values() for name, option in entry["options"].items()}


def defaults(role: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((role / "defaults" / "main.yml").read_text())
    return loaded


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_specs_and_defaults_name_the_same_variables(role: Path) -> None:
    optional = {name for name, option in options(role).items() if not option.get("required")}
    assert optional == set(defaults(role))


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_required_variables_have_no_default(role: Path) -> None:
    required = {name for name, option in options(role).items() if option.get("required")}
    assert not required & set(defaults(role))


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_variables_have_the_roles_prefix(role: Path) -> None:
    private = yaml.safe_load((role / "vars" / "main.yml").read_text())
    assert [name for name in options(role) if not name.startswith(f"{role.name}_")] == []
    assert [name for name in private if not name.startswith(f"__{role.name}_")] == []


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_documented_defaults_are_the_defaults(role: Path) -> None:
    """A default that is computed, or a mapping, is documented in words or key by key."""
    documented = options(role)
    for name, value in defaults(role).items():
        if isinstance(value, dict) and "options" in documented[name]:
            known = documented[name]["options"].items()
            assert {key: option["default"] for key, option in known if "default" in option} == value
        elif not (isinstance(value, str) and "{{" in value) and not (isinstance(value, dict) and value):
            assert documented[name]["default"] == value, name


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_every_option_is_described(role: Path) -> None:
    assert [name for name, option in options(role).items() if not option.get("description")] == []
