"""Every module documents each of its options, by keys that Ansible knows, in a file that stays thin."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[3]
MODULES = sorted([*ROOT.glob("library/*.py"), *ROOT.glob("roles/*/library/*.py")])
KNOWN = {"description", "type", "elements", "required", "default", "choices", "options", "aliases", "version_added"}


def documents(path: Path) -> dict[str, Any]:
    found = {}
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            found[ast.unparse(node.targets[0])] = yaml.safe_load(node.value.value)
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_options_are_described_in_keys_that_ansible_knows(path: Path) -> None:
    """A comma inside a flow mapping makes a key of the rest of the sentence, and Ansible says nothing."""
    options = documents(path)["DOCUMENTATION"]["options"]
    assert {name: set(option) - KNOWN for name, option in options.items() if set(option) - KNOWN} == {}
    assert [name for name, option in options.items() if not option.get("description")] == []


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


def test_ansible_doc_renders_every_module() -> None:
    names = [path.stem for path in MODULES]
    command = [sys.executable, "-m", "ansible", "doc", "--json", "--type", "module", *names]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert sorted(json.loads(done.stdout)) == sorted(names)
