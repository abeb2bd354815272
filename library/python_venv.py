#!/usr/bin/python
"""Module python_venv: a venv on a host without internet, from an archive of wheels; standard library only."""

from __future__ import annotations

DOCUMENTATION = r"""
module: python_venv
short_description: Make a venv from an archive of wheels and lead a link to it
version_added: "0.1.0"
description:
  - Installs the archive that M(wheelhouse) made into a compiled venv named by its digest, complete or not at all.
  - Then leads the link to it in one step. A process keeps the venv that it began in until it is started again.
  - Venvs that are neither linked, nor among the last ones, nor in use by a process are removed.
options:
  archive: {description: The archive on this host. Not needed once its venv is complete., type: path, required: true}
  digest: {description: Digest of the archive's wheels., type: str, required: true}
  venvs_folder: {description: Folder of all venvs., type: path, default: /opt/outrider/venvs}
  link: {description: Symbolic link to the current venv., type: path, default: /opt/outrider/venv}
  python: {description: Interpreter of the host. Needs no pip or ensurepip., type: path, default: /usr/bin/python3}
  keep: {description: "How many venvs stay, the linked one included.", type: int, default: 2}
attributes:
  check_mode: {support: full, description: Reports which venv would be made and linked.}
  diff_mode: {support: full, description: Shows the linked digest before and after.}
author: [The Outrider authors]
"""

EXAMPLES = r"""
- name: The shim's venv
  python_venv: {archive: /opt/outrider/wheelhouse.tar, digest: "{{ wheels.digest }}"}
  become: true
"""

RETURN = r"""
python: {description: Interpreter of the venv through the link., returned: always, type: str}
digest: {description: What is linked., returned: always, type: str}
"""

import os
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

ARGUMENTS = {
    "archive": {"type": "path", "required": True},
    "digest": {"type": "str", "required": True},
    "venvs_folder": {"type": "path", "default": "/opt/outrider/venvs"},
    "link": {"type": "path", "default": "/opt/outrider/venv"},
    "python": {"type": "path", "default": "/usr/bin/python3"},
    "keep": {"type": "int", "default": 2},
}


def main() -> None:
    module = AnsibleModule(ARGUMENTS, supports_check_mode=True)
    # Here, because ansible-lint loads this file, to know the options, without the role's module_utils.
    from ansible.module_utils.venvs import VenvError, alone, build, is_complete, linked, prune, switch

    params, digest = module.params, module.params["digest"]
    # Resolved, as the kernel names what processes have mapped.
    venvs, link = Path(params["venvs_folder"]).resolve(), Path(params["link"])
    venv = venvs / digest
    os.umask(0o022)  # hosts may have a stricter one, and other users run what is in the venv
    try:
        before = linked(link)
        changed = before != venv or not is_complete(venv)
        if changed and not module.check_mode:
            with alone(venvs):
                if not is_complete(venv):
                    build(venv, Path(params["archive"]), params["python"])
                switch(link, venv)
                prune(venvs, max(params["keep"], 1))
    except VenvError as error:
        module.fail_json(msg=str(error))
    diff = {"before": f"{before.name}\n" if before else "", "after": f"{digest}\n", "before_header": str(link)}
    module.exit_json(changed=changed, python=str(link / "bin" / "python"), digest=digest, diff=diff)


if __name__ == "__main__":
    main()
