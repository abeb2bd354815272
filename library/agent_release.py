#!/usr/bin/python
"""Module agent_release: agents' code, packed once on the controller and installed by digest on each host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: agent_release
short_description: Pack agents' code, or install it on a host
version_added: "0.1.0"
description:
  - With O(state=packed) packs each source, a folder, a wheel or a git ref, into one archive named by its digest.
  - With O(state=present) installs the archives that the host lacks, beside those that it has.
options:
  sources: {description: "Each with C(key), C(code), C(base), as M(fleet) returns them.", type: list, elements: dict}
  cache: {description: Folder on the controller that keeps archives., type: path}
  releases: {description: "By key, C(digest) and C(archive), as returned when packed.", type: dict}
  releases_dir: {description: Folder on the host that releases are installed in., type: path}
  secrets: {description: "By what needs it, a file that must be readable.", type: dict, default: {}}
  keep: {description: "How many of the releases that are not wanted stay, the newest.", type: int, default: 3}
  state: {description: What shall be., type: str, choices: [packed, present], default: present}
attributes:
  check_mode: {support: full, description: Reports what would be installed.}
  diff_mode: {support: full, description: Shows the digests that appear.}
author: [The Outrider authors]
"""

EXAMPLES = r"""
- name: Pack the agents' code
  agent_release: {sources: "{{ fleet.sources }}", cache: .outrider/cache, state: packed}
  register: packed

- name: Install it
  agent_release: {releases: "{{ packed.releases }}", releases_dir: /opt/outrider/releases}
"""

RETURN = r"""
releases: {description: "By key, C(digest) and C(archive).", returned: when packed, type: dict}
digests: {description: Digest by key., returned: when packed, type: dict}
removed: {description: Digests of old releases that were removed., returned: when present, type: list, elements: str}
installed: {description: Digests installed by this run., returned: when present, type: list, elements: str}
"""

import os
from pathlib import Path
from typing import Any

import msgspec
from ansible.module_utils.basic import AnsibleModule

from outrider.errors import HostError, OutriderError
from outrider.fleet.spec import Code
from outrider.host.releases import install, pack, prune


def packed(sources: list[dict[str, Any]], cache: Path) -> dict[str, dict[str, str]]:
    """Each source as an archive named by its digest. Raises ReleaseError."""
    releases = {}
    for source in sources:
        done = pack(msgspec.convert(source["code"], Code), Path(source["base"]), cache)
        releases[source["key"]] = {"digest": done.digest, "archive": str(done.archive)}
    return releases


def refuse_unreadable(secrets: dict[str, str]) -> None:
    """Raises HostError naming every secret that is not a readable file, and never its content."""
    missing = [f"{needs}: {path}" for needs, path in secrets.items() if not os.access(path, os.R_OK)]
    if missing:
        raise HostError("these secrets are no readable files on the host:\n" + "\n".join(missing))


def outdated(folder: Path, wanted: set[str], keep: int) -> set[str]:
    """Releases that are neither wanted nor among the `keep` newest of the others, which a rollback may want."""
    others = [path for path in folder.glob("*") if path.is_dir() and path.name not in wanted]
    others.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    return {path.name for path in others[keep:]}


def main() -> None:
    spec: dict[str, Any] = {
        "sources": {"type": "list", "elements": "dict"},
        "cache": {"type": "path"},
        "releases": {"type": "dict"},
        "releases_dir": {"type": "path"},
        "secrets": {"type": "dict", "default": {}, "no_log": False},
        "keep": {"type": "int", "default": 3},
        "state": {"type": "str", "choices": ["packed", "present"], "default": "present"},
    }
    required = [("state", "packed", ("sources", "cache")), ("state", "present", ("releases", "releases_dir"))]
    module = AnsibleModule(spec, required_if=required, supports_check_mode=True)
    params = module.params
    try:
        if params["state"] == "packed":
            # Digests are wanted in check mode too; the archives then go where nothing stays.
            releases = packed(params["sources"], Path(module.tmpdir if module.check_mode else params["cache"]))
            digests = {key: release["digest"] for key, release in releases.items()}
            module.exit_json(changed=False, releases=releases, digests=digests)
        refuse_unreadable(params["secrets"])
        folder = Path(params["releases_dir"])
        wanted = {r["digest"]: r["archive"] for r in params["releases"].values()}
        lacking = [digest for digest in wanted if not (folder / digest).is_dir()]
        for digest in [] if module.check_mode else lacking:
            install(Path(wanted[digest]), digest, folder)
        old = outdated(folder, set(wanted), params["keep"])
        if old and not module.check_mode:
            prune(folder, {path.name for path in folder.glob("*")} - old)
    except OutriderError as error:
        module.fail_json(msg=str(error))
    diff = {"before": "".join(f"{d}\n" for d in sorted(old)), "after": "".join(f"{d}\n" for d in lacking)}
    module.exit_json(changed=bool(lacking or old), installed=lacking, removed=sorted(old), diff=diff)


if __name__ == "__main__":
    main()
