#!/usr/bin/python
"""Module debian_program: one program out of a verified Debian package, without root."""

from __future__ import annotations

DOCUMENTATION = r"""
module: debian_program
short_description: Take one program out of a Debian package without installing it
version_added: "0.1.0"
description:
  - Fetches a package of any Debian suite from the mirror that this machine's own apt sources name.
  - The suite's C(InRelease) is verified by C(gpgv), the index by it, and the package by the index.
  - Unpacks one file of it to O(dest), complete or not at all. No root is needed.
options:
  package: {description: Name of the package., type: str, required: true}
  version: {description: Upstream version that the package must have., type: str, required: true}
  suite: {description: Code name of the Debian release that has it., type: str, required: true}
  arch: {description: Debian's name of the architecture., type: str, required: true}
  member: {description: Path of the program inside the package., type: str, required: true}
  dest: {description: Where the program shall be. What is there already is kept., type: path, required: true}
  keyring:
    description: Keys that may sign the suite.
    type: path
    default: /usr/share/keyrings/debian-archive-keyring.gpg
requirements: [gpgv, debian-archive-keyring, dpkg]
attributes:
  check_mode: {support: full, description: Reports what would be fetched and fetches nothing.}
  diff_mode: {support: full, description: Shows the version that appears.}
author: [The Outrider authors]
"""

EXAMPLES = r"""
- name: Real Consul from Debian bullseye
  debian_program:
    package: consul
    version: 1.8.7
    suite: bullseye
    arch: amd64
    member: usr/bin/consul
    dest: ~/.cache/outrider/consul/1.8.7/consul
"""

RETURN = r"""
dest: {description: The program., returned: always, type: str, sample: /home/me/.cache/outrider/consul/1.8.7/consul}
version: {description: Full version of the package fetched., returned: when fetched, type: str, sample: 1.8.7+dfsg1-2}
sha256: {description: Checksum of the package fetched., returned: when fetched, type: str}
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

OPTIONS = {name: {"type": "str", "required": True} for name in ("package", "version", "suite", "arch", "member")}
OPTIONS |= {
    "dest": {"type": "path", "required": True},
    "keyring": {"type": "path", "default": "/usr/share/keyrings/debian-archive-keyring.gpg"},
}


def main() -> None:
    module = AnsibleModule(OPTIONS, supports_check_mode=True)
    # Here, because ansible-lint loads this file, to know the options, without the role's module_utils.
    from ansible.module_utils.debian_mirror import MirrorError, find, mirrors, signed_release, unpack_program

    params = module.params
    dest = Path(params["dest"])
    if dest.is_file():
        module.exit_json(changed=False, dest=str(dest))
    shown = f"{params['package']} {params['version']} ({params['suite']}, {params['arch']})\n"
    diff = {"before": "", "after": shown, "before_header": str(dest), "after_header": str(dest)}
    if module.check_mode:
        module.exit_json(changed=True, dest=str(dest), diff=diff)
    try:
        mirror, release = signed_release(params["suite"], mirrors(), Path(params["keyring"]))
        entry = find(params["package"], params["arch"], params["suite"], mirror, release)
        if not entry.version.startswith(params["version"]):
            module.fail_json(msg=f"Debian {params['suite']} has {params['package']} {entry.version}, "
                                 f"not {params['version']}")  # fmt: skip
        unpack_program(entry, mirror, params["member"], dest)
    except MirrorError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=True, dest=str(dest), version=entry.version, sha256=entry.sha256, diff=diff)


if __name__ == "__main__":
    main()
