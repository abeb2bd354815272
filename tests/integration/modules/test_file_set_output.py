"""No secret of a file reaches Ansible's output or the system's log: through a real ansible-playbook -vvv --diff."""

from __future__ import annotations

import getpass
import grp
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
pytestmark = pytest.mark.integration
KEY = "Zm9yIG5vYm9keSdzIGV5ZXMgYnV0IHRoZSBob3N0J3M="
FORMER = "aG93IGl0IHdhcyBiZWZvcmUgdGhpcyBydW4gYmVnYW4h"
# Stands in for python3-systemd, through which a module logs: no root and no journal are needed to read along.
JOURNAL = """
import os
sendv = None
def send(**fields):
    with open(os.environ["JOURNAL_READ_ALONG"], "a") as stream:
        print(fields, file=stream)
"""


class Play:
    """One task of module file_set on this host, with everything shown."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.journal = folder, folder / "journal"
        (folder / "python" / "systemd").mkdir(parents=True)
        (folder / "python" / "systemd" / "__init__.py").touch()
        (folder / "python" / "systemd" / "journal.py").write_text(JOURNAL)
        (folder / "python" / "systemd" / "daemon.py").write_text("booted = lambda: True\n")

    def __call__(self, *options: str, **arguments: Any) -> str:
        task = {"name": "Write", "file_set": arguments}
        play = {"hosts": "localhost", "connection": "local", "gather_facts": False, "tasks": [task]}
        (self.folder / "play.yml").write_text(json.dumps([play]))
        environment = {
            **os.environ,
            "PYTHONPATH": str(self.folder / "python"),
            "JOURNAL_READ_ALONG": str(self.journal),
            "ANSIBLE_HOME": str(self.folder / "ansible"),
            "ANSIBLE_REMOTE_TEMP": str(self.folder / "ansible" / "tmp"),
            "ANSIBLE_PYTHON_INTERPRETER": sys.executable,
            "ANSIBLE_NOCOLOR": "1",
        }
        command = [sys.executable, "-m", "ansible", "playbook", "-i", "localhost,", "-vvv", "--diff", *options]
        command += [str(self.folder / "play.yml")]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        return done.stdout + done.stderr


def test_secrets_are_neither_shown_nor_logged_and_other_files_are(tmp_path: Path) -> None:
    play, etc = Play(tmp_path), tmp_path / "etc"
    etc.mkdir()
    (etc / "secret.json").write_text(json.dumps({"encrypt": FORMER}))
    me = {"owner": getpass.getuser(), "group": grp.getgrgid(os.getgid()).gr_name}
    secret = {"path": str(etc / "secret.json"), "content": json.dumps({"encrypt": KEY}), "secret": True, **me}
    plain = {"path": str(etc / "plain.conf"), "content": "workers = 4711\n", **me}
    fails = [sys.executable, "-c", "import sys; sys.exit(open(sys.argv[1]).read())", "%s"]
    outputs = [
        play("--check", files=[secret, plain]),
        play(files=[{**secret, "validate": fails}, plain]),
        play(files=[secret, plain], folder="misspelt"),
        play(files=[secret, plain, "not a dict"]),
        play(files=[secret, plain]),
    ]
    predicted, refused, misspelt, _, written = outputs
    for output in (predicted, written):
        assert "+workers = 4711" in output
        assert "+(secret) as it shall be" in output
        assert "changed=1" in output
        assert str(etc / "secret.json") in output
    assert "(secret)" in refused
    assert "Nothing was changed." in refused
    assert "Unsupported parameters" in misspelt
    assert json.loads((etc / "secret.json").read_text()) == {"encrypt": KEY}
    logged = play.journal.read_text()
    assert "file_set" in logged
    for text in (*outputs, logged):
        assert KEY not in text
        assert FORMER not in text
    assert "changed=0" in play(files=[secret, plain])
