"""Every module documents each of its options, by keys that Ansible knows, in a file that stays thin."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import yaml

from unit.library.as_ansible import ROOT, load

MODULES = sorted([*ROOT.glob("library/*.py"), *ROOT.glob("roles/*/library/*.py")])
KNOWN = {"description", "type", "elements", "required", "default", "choices", "options", "aliases", "version_added"}


@pytest.fixture(scope="module")
def shown() -> dict[str, Any]:
    """What ansible-doc shows of every module, with what it has from fragments."""
    names = [path.stem for path in MODULES]
    command = [sys.executable, "-m", "ansible", "doc", "--json", "--type", "module", *names]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def taken(path: Path) -> dict[str, Any]:
    """The arguments that a module takes, as it tells Ansible."""
    module = load(path.stem, path.parent)
    with patch.object(module, "AnsibleModule", side_effect=InterruptedError) as made, pytest.raises(InterruptedError):
        module.main()
    return dict(made.call_args.args[0])


def assert_documented(documented: dict[str, Any], arguments: dict[str, Any]) -> None:
    assert documented.keys() == arguments.keys()
    usual = {"type": "str", "required": False}
    for name, argument in arguments.items():
        for key in ("type", "default", "choices", "elements", "required"):
            assert documented[name].get(key, usual.get(key)) == argument.get(key, usual.get(key)), f"{name}.{key}"
        if "options" in argument:
            assert_documented(documented[name]["options"], argument["options"])


def documents(path: Path) -> dict[str, Any]:
    found = {}
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            found[ast.unparse(node.targets[0])] = yaml.safe_load(node.value.value)
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_options_are_described_in_keys_that_ansible_knows(path: Path, shown: dict[str, Any]) -> None:
    """A comma inside a flow mapping makes a key of the rest of the sentence, and Ansible says nothing."""
    options = shown[path.stem]["doc"]["options"]
    assert {name: set(option) - KNOWN for name, option in options.items() if set(option) - KNOWN} == {}
    assert [name for name, option in options.items() if not option.get("description")] == []


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_every_option_is_documented_as_it_is(path: Path, shown: dict[str, Any]) -> None:
    assert_documented(shown[path.stem]["doc"]["options"], taken(path))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_results_and_examples_are_documented(path: Path) -> None:
    found = documents(path)
    known = {"description", "returned", "type", "elements", "sample", "contains"}
    assert {name: set(value) - known for name, value in found["RETURN"].items() if set(value) - known} == {}
    assert all(path.stem in task for task in found["EXAMPLES"])
    assert all(task["name"] for task in found["EXAMPLES"])


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_check_mode_and_diff_are_declared(path: Path) -> None:
    attributes = documents(path)["DOCUMENTATION"]["attributes"]
    assert attributes["check_mode"]["support"] == "full"
    assert "diff_mode" in attributes


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_a_module_is_thin(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 130
