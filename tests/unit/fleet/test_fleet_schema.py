"""The committed schema and reference page are what the types say, and the schema takes what the loader takes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from outrider.fleet.load import load_fleet
from outrider.fleet.schema import PAGES, json_schema, reference

ROOT = Path(__file__).resolve().parents[3]
DOCS = ROOT / "docs/reference"


@pytest.mark.parametrize(("name", "text"), [("fleet.schema.json", json_schema()), ("fleet-file.md", reference())])
def test_the_committed_pages_are_current(name: str, text: str) -> None:
    assert (DOCS / name).read_text() == text, "run `make docs`"


def test_every_key_is_explained() -> None:
    schema = json.loads(json_schema())
    for kind in PAGES:
        for key, value in schema["$defs"][kind.__name__]["properties"].items():
            assert value["description"], f"{kind.__name__}.{key}"


def test_the_example_of_the_reference_page_is_valid(tmp_path: Path) -> None:
    lines = [line[4:] for line in reference().split("## Agent")[0].splitlines() if line.startswith("    ")]
    (tmp_path / "agents").mkdir()
    (tmp_path / "fleet.yml").write_text("\n".join(lines))
    assert list(load_fleet(tmp_path / "fleet.yml").agents) == ["Memory", "Planner", "Speech"]


def test_the_schema_takes_the_reference_fleet_and_refuses_a_wrong_key() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    checker = jsonschema.Draft202012Validator(json.loads(json_schema()))
    fleet = yaml.safe_load((ROOT / "inventories/reference/fleet.yml").read_text())
    assert list(checker.iter_errors(fleet)) == []
    fleet["defaults"]["modul"] = "x"
    assert len(list(checker.iter_errors(fleet))) == 1
