#!/usr/bin/python
"""Module file_set: many files of a host in one call, valid before any is in place, secret ones shown to nobody."""

from __future__ import annotations

DOCUMENTATION = r"""
module: file_set
short_description: Write many files at once, all or none
version_added: "0.1.0"
description:
  - Writes every file that differs beside its destination, with its final owner and mode, and validates it. If one is
    not valid nothing changes. Only then each is renamed into place, at once and synchronised to the disk.
  - Content never gets into the log, nor into what Ansible shows of the call. The difference of a secret file is hidden.
options:
  files:
    description: The files. A link in the place of one is replaced, not followed.
    type: list
    elements: dict
    default: []
    options:
      path: {description: Where it shall be., type: path, required: true}
      content: {description: All of it., type: str, required: true}
      mode: {description: "Its mode, quoted, with a leading zero.", type: str, default: "0644"}
      owner: {description: Its owner., type: str, default: root}
      group: {description: Its group., type: str, default: root}
      validate:
        description: "Command, or a list of its words, that must succeed on the candidate, whose path replaces C(%s)."
        type: raw
      secret: {description: Whether its content is hidden from differences and messages., type: bool, default: false}
  folders:
    description: Folders that shall be there. Missing parents are made with mode 0755.
    type: list
    elements: dict
    default: []
    options:
      path: {description: Where it shall be., type: path, required: true}
      mode: {description: "Its mode, quoted, with a leading zero.", type: str, default: "0755"}
      owner: {description: Its owner., type: str, default: root}
      group: {description: Its group., type: str, default: root}
  absent:
    description: Paths and shell patterns of files that shall not be there. What O(files) lists is kept.
    type: list
    elements: str
    default: []
attributes:
  check_mode:
    support: full
    description: Predicts everything. A file is validated if the program for it is there.
  diff_mode: {support: full, description: "Content, mode, owner and group; of a secret file not the content."}
author: [The Outrider authors]
"""

EXAMPLES = r"""
- name: Configuration of the Consul agent
  file_set:
    folders:
      - {path: /etc/consul.d/tls, mode: "0750", group: consul}
    files:
      - path: /etc/consul.d/consul.json
        content: "{{ settings | to_nice_json }}"
        mode: "0640"
        group: consul
        validate: consul validate %s
        secret: true
    absent: [/etc/consul.d/*.hcl]
  register: written
"""

RETURN = r"""
changed_paths:
  description: Files and folders that were written or removed, or would be.
  returned: always
  type: list
  elements: str
  sample: [/etc/consul.d/consul.json]
"""

from ansible.module_utils.basic import AnsibleModule

LIST = {"type": "list", "default": []}
OPTIONS = {
    # So that arguments which are refused before main() goes on are hidden whole.
    "files": {**LIST, "elements": "dict", "no_log": True},
    "folders": {**LIST, "elements": "dict"},
    "absent": {**LIST, "elements": "str"},
}


def main() -> None:
    module = AnsibleModule(OPTIONS, supports_check_mode=True)
    # Here, because ansible-lint loads this file, to know the options, without the role's module_utils.
    from ansible.module_utils.file_batch import FileSetError, differences, parse_files, parse_folders, shown
    from ansible.module_utils.file_writing import validate_only, write

    given = module.params["files"]
    # no_log would hide every path and mode that occurs anywhere in the result, and every difference. So the content is
    # taken out of what Ansible shows of the call instead. The system's log shows nothing of `files` by then.
    module.params["files"] = [each.get("path") for each in given]
    module.no_log_values.clear()
    try:
        files, folders = parse_files(given), parse_folders(module.params["folders"])
        plan = differences(files, folders, module.params["absent"], module.check_mode)
        diff = shown(plan)
        if module.check_mode:
            validate_only(plan, module.tmpdir)
        else:
            write(plan)
    except OSError as error:
        module.fail_json(msg=str(FileSetError(str(error))))
    except FileSetError as error:
        module.fail_json(msg=str(error), changed_paths=error.done)
    paths = plan.paths()
    module.exit_json(changed=bool(paths), changed_paths=paths, diff=diff)


if __name__ == "__main__":
    main()
