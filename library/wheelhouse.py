#!/usr/bin/python
"""Module wheelhouse: all wheels that a Python project needs on the hosts, made once on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: wheelhouse
short_description: Make an archive of wheels for hosts without internet
version_added: "0.1.0"
description:
  - Runs on the controller. Takes what the project needs at run time out of a lock that pins more, fetches those wheels
    for the hosts' Python and architecture, builds the project's own, and packs all into one archive named by content.
  - Fetches from where pip's configuration on this machine says, and only what the cache lacks.
  - The same lock and sources give the same archive on every controller.
options:
  package: {description: Folder of the project with its C(pyproject.toml)., type: path, required: true}
  lock: {description: Requirements file that pins one tested set., type: path, required: true}
  requirements:
    description: Further requirement files. What they name is added, pinned by the lock, and nothing that it needs.
    type: list
    elements: path
    default: []
  extras: {description: Extras of the project., type: list, elements: str, default: []}
  python_version: {description: "Python of the hosts, such as 3.11.", type: str, required: true}
  architecture: {description: Of the hosts., type: str, choices: [x86_64, aarch64], default: x86_64}
  cache: {description: Folder on the controller that keeps archives and wheels., type: path, required: true}
requirements: [outrider, packaging, pip, setuptools]
attributes:
  check_mode: {support: full, description: Fetches and keeps nothing. The digest is unknown if wheels must be fetched.}
  diff_mode: {support: full, description: Shows the packages of an archive that is new.}
author: [The Outrider authors]
"""

EXAMPLES = r"""
- name: Wheels for the hosts, made once
  wheelhouse:
    package: "{{ playbook_dir | dirname }}/python"
    lock: "{{ playbook_dir | dirname }}/requirements.lock"
    requirements: ["{{ playbook_dir | dirname }}/examples/requirements-models.txt"]
    extras: [zmq]
    python_version: "3.11"
    cache: ~/.cache/outrider/wheelhouses
  delegate_to: localhost
  run_once: true
  register: wheels
"""

RETURN = r"""
digest: {description: "SHA-256 of what C(sha256sum *.whl) prints, or C(not built yet).", returned: always, type: str}
archive: {description: Uncompressed tar of the wheels., returned: always, type: str}
packages: {description: What a host installs., returned: always, type: list, elements: str, sample: [six==1.17.0]}
bytes: {description: Size of the archive., returned: always, type: int, sample: 206315520}
"""

from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule, missing_required_lib

ARGUMENTS: dict[str, dict[str, Any]] = {
    "package": {"type": "path", "required": True},
    "lock": {"type": "path", "required": True},
    "requirements": {"type": "list", "elements": "path", "default": []},
    "extras": {"type": "list", "elements": "str", "default": []},
    "python_version": {"type": "str", "required": True},
    "architecture": {"type": "str", "choices": ["x86_64", "aarch64"], "default": "x86_64"},
    "cache": {"type": "path", "required": True},
}


def main() -> None:
    module = AnsibleModule(ARGUMENTS, supports_check_mode=True)
    params = module.params
    try:
        from outrider.errors import OutriderError
        from outrider.host.wheelhouse import Order, wheelhouse
    except ImportError as error:
        module.fail_json(msg=missing_required_lib("outrider", reason="on the controller"), exception=str(error))
    order = Order(
        project=Path(params["package"]),
        lock=Path(params["lock"]),
        cache=Path(params["cache"]),
        python_version=params["python_version"],
        architecture=params["architecture"],
        extras=tuple(params["extras"]),
        alone=tuple(map(Path, params["requirements"])),
    )
    try:
        made, fresh = wheelhouse(order, dry=module.check_mode)
    except OutriderError as error:
        module.fail_json(msg=str(error))
    module.exit_json(
        changed=fresh,
        digest=made.digest,
        archive=made.archive,
        packages=made.packages,
        bytes=made.bytes,
        diff={"before": "", "after": "".join(f"{package}\n" for package in made.packages)} if fresh else {},
    )


if __name__ == "__main__":
    main()
