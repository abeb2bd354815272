"""Files given to one other user by an owner without privileges: that user may use them, a third one may not."""

from __future__ import annotations

import errno
import os
import pwd
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from outrider.errors import HostError
from outrider.host.access import READ, WRITE, grant, passable_folder, user_id
from outrider.host.launch_file import hand_over, launch_file
from outrider.host.supervisor import Launch

NAMES = ("bin", "daemon", "games")  # the shim's, the agent's and a third one
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="becoming other users needs root")


def may(user: str, action: str, path: Path) -> bool:
    """Whether the user succeeds in it, asked by becoming that user."""
    script = {"read": 'cat "$0"', "append": 'echo x >>"$0"', "touch": 'touch "$0"', "replace": 'rm "$0"'}[action]
    command = ["/bin/sh", "-c", script, str(path)]
    found = pwd.getpwnam(user)
    done = subprocess.run(
        command, user=found.pw_uid, group=found.pw_gid, extra_groups=[], capture_output=True, check=False
    )
    return done.returncode == 0


@pytest.fixture
def shim_folder() -> Iterator[Path]:
    """A folder of the shim's user that the others may pass through."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found = pwd.getpwnam(NAMES[0])
        os.chown(folder, found.pw_uid, found.pw_gid)
        folder.chmod(0o711)
        yield folder


def as_shim(call: Callable[[], object]) -> int:
    """Run the call in a child that is the shim's user; its exit status."""
    found = pwd.getpwnam(NAMES[0])
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.setgroups([])
            os.setgid(found.pw_gid)
            os.setuid(found.pw_uid)
            os.umask(0o027)
            call()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@needs_root
def test_an_unprivileged_shim_hands_an_agent_its_files_and_nobody_elses(shim_folder: Path) -> None:
    _, agent, third = NAMES
    config, beat, log = shim_folder / "config.json", shim_folder / "beat", shim_folder / "agents" / "Echo-1.log"
    env = {"OUTRIDER_CONFIG": str(config), "OUTRIDER_HEARTBEAT": str(beat)}
    launch = Launch("Echo-1", "Echo", ("true",), env, "/", str(log))

    def prepare_and_hand_over() -> None:
        config.write_text("{}")
        beat.touch()
        hand_over(shim_folder, launch, agent)

    assert as_shim(prepare_and_hand_over) == 0
    allowed = {
        launch_file(shim_folder, "Echo-1"): {"read"},
        config: {"read"},
        beat: {"read", "append", "touch"},
        log: {"read", "append", "touch"},
    }
    for path, actions in allowed.items():
        for action in ("read", "append", "touch", "replace"):
            assert may(agent, action, path) == (action in actions), (path, action)
            assert not may(third, action, path), (path, action)
    # The agent gets another user: the first one may no more.
    assert as_shim(lambda: hand_over(shim_folder, launch, third)) == 0
    assert may(third, "append", log)
    assert not may(agent, "read", log)
    assert not may(agent, "read", config)


@needs_root
def test_only_the_owner_can_give_a_file_away(shim_folder: Path) -> None:
    path = shim_folder / "roots"
    path.touch(0o600)

    def give() -> None:
        with pytest.raises(PermissionError):
            grant(path, user_id(NAMES[1]), READ)

    assert as_shim(give) == 0


def test_a_file_of_our_own_needs_no_list(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch(0o644)
    grant(path, os.geteuid(), READ | WRITE)
    assert path.stat().st_mode & 0o777 == 0o600
    assert not [name for name in os.listxattr(path) if "acl" in name]


def test_a_file_system_without_access_lists_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(os, "setxattr", refuse)
    with pytest.raises(HostError, match="keeps no access lists"):
        grant(tmp_path, 12345, READ)


def test_users_are_found_by_name_and_number() -> None:
    assert user_id("root") == 0
    assert user_id("1234") == 1234
    with pytest.raises(HostError, match="no-such-user does not exist"):
        user_id("no-such-user")


def test_a_folder_is_passable_whatever_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o077)
    try:
        passable_folder(tmp_path / "a")
        (tmp_path / "b").mkdir(0o755)
        passable_folder(tmp_path / "b")
    finally:
        os.umask(old)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o711
