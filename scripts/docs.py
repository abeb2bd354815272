"""Writes reference pages, roles' READMEs and the table of risks from what the code says; --check only compares."""

from __future__ import annotations

import argparse
import ast
import contextlib
import re
import sys
from pathlib import Path
from typing import Any

import yaml
from ansible.plugins.loader import fragment_loader
from ansible.utils.plugin_docs import add_fragments

from outrider.fleet import schema
from outrider.migration.risk.factors import FACTORS
from outrider.migration.risk.survey import Asked, of_file

ROOT = Path(__file__).resolve().parent.parent
OPTIONS_MARK = "<!-- Below: written by `make docs` from meta/argument_specs.yml. -->"
RISK_MARK = "<!-- Below: written by `make docs` from inventories/reference. -->"
MARKS = re.compile(r"[A-Z]\(([^)]*)\)")


def words(value: str | list[str]) -> str:
    """A description as one line of Markdown: Ansible's V(x), O(x) and C(x) become code."""
    text = " ".join(value) if isinstance(value, list) else value
    return MARKS.sub(lambda mark: f"`{mark[1].removeprefix('main.')}`", text).replace("|", "\\|").replace("\n", " ")


def table(options: dict[str, Any]) -> list[str]:
    rows = ["| name | type | default | what |", "| --- | --- | --- | --- |"]
    for name, option in options.items():
        default = "*required*" if option.get("required") else words(str(option.get("default", "")))
        choices = f" One of {', '.join(f'`{choice}`' for choice in option['choices'])}." if "choices" in option else ""
        rows.append(f"| `{name}` | {option.get('type', 'str')} | {default} | {words(option['description'])}{choices} |")
        rows += table_of_parts(name, option.get("options", {}))
    return rows


def table_of_parts(name: str, options: dict[str, Any]) -> list[str]:
    return [row.replace("| `", f"| `{name}.", 1) for row in table(options)[2:]]


def roles_page() -> str:
    lines = ["# Roles", "", "Written by `make docs` from each role's `meta/argument_specs.yml`.", ""]
    lines += ["| role | what | variables |", "| --- | --- | --- |"]
    for path in sorted(ROOT.glob("roles/*/meta/argument_specs.yml")):
        role, entries = path.parent.parent.name, yaml.safe_load(path.read_text())["argument_specs"]
        link = f"[README](../roles/{role}/README.md)"
        for entry, spec in entries.items():
            name = f"`{role}`" if entry == "main" else f"`{role}`, `tasks_from: {entry}`"
            lines.append(f"| {name} | {words(spec['description'])} | {link} |")
    return "\n".join([*lines, ""])


def role_readme(role: str) -> str:
    """The role's README as it is, and below the mark a table of its options."""
    path = ROOT / "roles" / role / "README.md"
    lines = [path.read_text().split(OPTIONS_MARK)[0].rstrip(), "", OPTIONS_MARK, ""]
    for entry, spec in yaml.safe_load((path.parent / "meta" / "argument_specs.yml").read_text())[
        "argument_specs"
    ].items():
        options = table(spec["options"]) if spec["options"] else ["No variables."]
        lines += [f"## Variables{'' if entry == 'main' else f' of `{entry}`'}", "", *options, ""]
    return "\n".join(lines)


def risk_page() -> str:
    """As it is, and below the mark each agent of the reference fleet. What is not known is marked with ?."""
    lines = [(ROOT / "docs/risk.md").read_text().split(RISK_MARK)[0].rstrip(), "", RISK_MARK, ""]
    keys = [factor.key for factor in FACTORS]
    lines += [f"| agent | points | unknown | band | {' | '.join(keys)} | above |", "| --- " * (len(keys) + 5) + "|"]
    for risk in of_file(ROOT / "inventories/reference", None, Asked()):
        by_key = {each.key: f"{each.points}{'' if each.measured else '?'}" for each in risk.contributions}
        cells = [risk.agent, str(risk.points), str(risk.unknown), risk.band.name, *(by_key[key] for key in keys)]
        lines.append(f"| {' | '.join(cells)} | {risk.extra} |")
    return "\n".join([*lines, ""])


def modules_page() -> str:
    lines = ["# Modules", "", "Written by `make docs` from each module's documentation.", ""]
    fragment_loader.add_directory(str(ROOT / "plugins" / "doc_fragments"))
    for path in sorted([*ROOT.glob("library/*.py"), *ROOT.glob("roles/*/library/*.py")]):
        carried = constants(path)
        doc = yaml.safe_load(carried["DOCUMENTATION"])
        add_fragments(doc, str(path), fragment_loader)
        lines += [f"## {doc['module']}", "", words(doc["description"]), "", *table(doc["options"]), ""]
        lines += ["```yaml", carried["EXAMPLES"].strip(), "```", "", "Returns:", ""]
        returned = yaml.safe_load(carried["RETURN"])
        lines += [f"- `{name}` ({value['type']}): {words(value['description'])}" for name, value in returned.items()]
        lines.append("")
    return "\n".join(lines)


def constants(path: Path) -> dict[str, str]:
    """DOCUMENTATION, EXAMPLES and RETURN of a module, read and not run."""
    found = {}
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            with contextlib.suppress(ValueError):
                found[node.targets[0].id] = ast.literal_eval(node.value)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="exit status 1 if a page is not as it would be written")
    check = parser.parse_args().check
    pages = {
        "docs/roles.md": roles_page(),
        "docs/modules.md": modules_page(),
        "docs/risk.md": risk_page(),
        "docs/reference/fleet-file.md": schema.reference(),
        "docs/reference/fleet.schema.json": schema.json_schema(),
    }
    roles = sorted(path.parent.parent.name for path in ROOT.glob("roles/*/meta/argument_specs.yml"))
    pages |= {f"roles/{role}/README.md": role_readme(role) for role in roles}
    stale = [name for name, text in pages.items() if not is_current(name, text)]
    for name in [] if check else stale:
        (ROOT / name).write_text(pages[name])
    print(f"docs: {', '.join(stale) or 'nothing'} {'is stale: run `make docs`' if check and stale else 'written'}")
    return 1 if check and stale else 0


def is_current(name: str, text: str) -> bool:
    page = ROOT / name
    return page.exists() and page.read_text() == text


if __name__ == "__main__":
    sys.exit(main())
