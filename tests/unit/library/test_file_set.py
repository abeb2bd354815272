"""Files are written all or none, at once, idempotently, and what is secret is readable and shown nowhere."""

from __future__ import annotations

import grp
import json
import os
import pwd
import shlex
import stat
import sys
from pathlib import Path
from typing import Any

import ansible.module_utils
import pytest

from unit.library.as_ansible import ROOT, Run, load, run_module

ME = {"owner": pwd.getpwuid(os.getuid()).pw_name, "group": grp.getgrgid(os.getgid()).gr_name}
UUID = "b3f1c6e4-9a51-4e6f-8f5c-2f0f3f0a1d77"
REFUSES = [sys.executable, "-c", "import sys; print('bad:', open(sys.argv[1]).read()); sys.exit(3)", "%s"]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Run the module as Ansible would, and return what it prints."""
    utilities = [*ansible.module_utils.__path__, str(ROOT / "roles" / "consul" / "module_utils")]
    monkeypatch.setattr(ansible.module_utils, "__path__", utilities)
    monkeypatch.setenv("HOME", str(tmp_path))
    module = load("file_set")

    def call(check: bool = False, **arguments: Any) -> dict[str, Any]:
        return run_module(module, {**arguments, "_ansible_check_mode": check}, capsys)

    return call


def file(path: Path, content: str = "a = 1\n", **more: Any) -> dict[str, Any]:
    return {"path": str(path), "content": content, **ME, **more}


def mode(path: Path) -> str:
    return f"{stat.S_IMODE(path.stat().st_mode):04o}"


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_files_and_folders_are_written_once(run: Run, tmp_path: Path) -> None:
    etc = tmp_path / "outer" / "etc"
    arguments: dict[str, Any] = {
        "folders": [{"path": str(etc), "mode": "0750", **ME}],
        "files": [file(etc / "a"), file(etc / "b", UUID, mode="0600", secret=True)],
    }
    predicted = run(check=True, **arguments)
    assert not etc.parent.exists()
    written = run(**arguments)
    assert written["changed"] is True
    assert written["changed_paths"] == predicted["changed_paths"] == [str(etc), str(etc / "a"), str(etc / "b")]
    assert written["diff"] == predicted["diff"]
    assert (mode(etc.parent), mode(etc), mode(etc / "a"), mode(etc / "b")) == ("0755", "0750", "0644", "0600")
    assert ((etc / "a").read_text(), (etc / "b").read_text()) == ("a = 1\n", UUID)
    inodes = [(etc / name).stat().st_ino for name in "ab"]
    again = run(**arguments)
    assert (again["changed"], again["changed_paths"], again["diff"]) == (False, [], [])
    assert [(etc / name).stat().st_ino for name in "ab"] == inodes
    assert names(etc) == ["a", "b"]


def test_a_difference_in_mode_or_content_is_found_and_shown(run: Run, tmp_path: Path) -> None:
    run(files=[file(tmp_path / "a"), file(tmp_path / "b")])
    (tmp_path / "a").chmod(0o600)
    result = run(files=[file(tmp_path / "a"), file(tmp_path / "b", "a = 2\n")])
    assert result["changed_paths"] == [str(tmp_path / "a"), str(tmp_path / "b")]
    assert [part["before_header"] for part in result["diff"]] == [
        f"{tmp_path / 'a'} (mode, owner, group)",
        str(tmp_path / "b"),
    ]
    assert (result["diff"][1]["before"], result["diff"][1]["after"]) == ("a = 1\n", "a = 2\n")
    assert mode(tmp_path / "a") == "0644"


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives files away")
def test_a_foreign_owner_is_set(run: Run, tmp_path: Path) -> None:
    arguments = {"files": [{"path": str(tmp_path / "a"), "content": "", "owner": "nobody", "group": "nogroup"}]}
    assert run(**arguments)["changed"]
    found = (tmp_path / "a").stat()
    assert (found.st_uid, found.st_gid) == (pwd.getpwnam("nobody").pw_uid, grp.getgrnam("nogroup").gr_gid)
    assert not run(**arguments)["changed"]


def test_one_file_that_is_not_valid_keeps_all_as_they_were(run: Run, tmp_path: Path) -> None:
    (tmp_path / "b").write_text("old")
    (tmp_path / "gone").touch()
    before = names(tmp_path)
    result = run(
        folders=[{"path": str(tmp_path / "new" / "inner"), **ME}],
        files=[file(tmp_path / "new" / "inner" / "a"), file(tmp_path / "b", "wrong", validate=REFUSES)],
        absent=[str(tmp_path / "gone")],
    )
    assert result["failed"] is True
    assert result["msg"].startswith(f"{tmp_path / 'b'}: ")
    assert "ended with 3: bad: wrong" in result["msg"]
    assert result["msg"].endswith("Nothing was changed.")
    assert names(tmp_path) == before
    assert (tmp_path / "b").read_text() == "old"


def test_the_validating_program_sees_the_final_name_mode_and_content(run: Run, tmp_path: Path) -> None:
    script = tmp_path / "look"
    script.write_text(
        f'#!/bin/sh\n{{ basename "$1"; stat -c %a "$1"; cat "$1"; }} > {shlex.quote(str(tmp_path))}/seen\n'
    )
    script.chmod(0o755)
    run(files=[file(tmp_path / "x.json", "{}", mode="0640", validate=f"{shlex.quote(str(script))} %s")])
    assert (tmp_path / "seen").read_text() == "x.json\n640\n{}"


def test_a_secret_is_never_readable_by_others_on_the_way(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever exists before a rename is 0600 or lies in a folder that is 0700."""
    seen: list[str] = []
    chown, replace = os.fchown, os.replace

    def fchown(descriptor: int, user: int, group: int) -> None:
        seen.append(f"{stat.S_IMODE(os.fstat(descriptor).st_mode):04o}")
        chown(descriptor, user, group)

    def rename(old: str, new: str) -> None:
        seen.append(mode(Path(old).parent))
        replace(old, new)

    monkeypatch.setattr(os, "fchown", fchown)
    monkeypatch.setattr(os, "replace", rename)
    run(files=[file(tmp_path / "key", UUID, mode="0644", secret=True)])
    assert seen == ["0600", "0700"]


def test_a_program_that_is_not_there_is_passed_over_in_check_mode_only(run: Run, tmp_path: Path) -> None:
    files = [file(tmp_path / "a", validate="no-such-program %s")]
    assert run(check=True, files=files)["changed"]
    assert "there is no program no-such-program" in run(files=files)["msg"]
    assert "bad: a = 1" in run(check=True, files=[file(tmp_path / "a", validate=REFUSES)])["msg"]
    assert not (tmp_path / "a").exists()


def test_files_are_removed_by_path_and_pattern_but_never_a_listed_one(run: Run, tmp_path: Path) -> None:
    for name in ("keep.json", "old.json", "other"):
        (tmp_path / name).write_text("a = 1\n")
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "dead.json").symlink_to("nowhere")
    absent = [str(tmp_path / "*.json"), str(tmp_path / "other"), str(tmp_path / "never")]
    arguments: dict[str, Any] = {"files": [file(tmp_path / "keep.json")], "absent": absent}
    expected = [str(tmp_path / name) for name in ("dead.json", "old.json", "other")]
    predicted = run(check=True, **arguments)["changed_paths"]
    assert set(expected) <= set(predicted)
    assert (tmp_path / "other").exists()
    assert run(**arguments)["changed_paths"] == predicted
    assert names(tmp_path) == ["folder.json", "keep.json"]
    assert not run(**arguments)["changed"]
    assert "is a folder" in run(absent=[str(tmp_path / "folder.json")])["msg"]


def test_a_link_is_replaced_and_not_followed(run: Run, tmp_path: Path) -> None:
    (tmp_path / "target").write_text("mine")
    (tmp_path / "a").symlink_to("target")
    run(files=[file(tmp_path / "a")])
    assert not (tmp_path / "a").is_symlink()
    assert (tmp_path / "target").read_text() == "mine"


def test_secrets_are_in_no_result(run: Run, tmp_path: Path) -> None:
    key = tmp_path / "k.json"
    key.write_text(json.dumps({"encrypt": "former" + UUID}))
    new = file(key, json.dumps({"acl": {"tokens": {"master": UUID}}, "port": 1}), secret=True)
    refused = run(files=[{**new, "validate": REFUSES}])
    assert '{"acl": {"tokens": {"master": "(secret)"}}, "port": 1}' in refused["msg"]
    written = run(files=[new])
    results = [refused, written, run(files=[{**new, "mode": "888"}]), run(files=[{**new, "contents": UUID}])]
    assert UUID not in json.dumps(results)
    assert written["diff"][0]["after"] == "(secret) as it shall be\n"
    assert written["invocation"]["module_args"]["files"] == [str(key)]
    assert UUID not in json.dumps(run(files=[UUID]))


@pytest.mark.parametrize("secret", ["KEY=hunter2hunter2\n", "bXkgc2VjcmV0IGtleQ==\n", "[a]\nkey: 'hunter2 hunter2'\n"])
def test_words_of_a_secret_file_are_masked_in_what_its_program_says(run: Run, tmp_path: Path, secret: str) -> None:
    refuses = [sys.executable, "-c", REFUSES[2].replace("read()", "read().replace('=', ' ').split()"), "%s"]
    message = run(files=[file(tmp_path / "a", secret, secret=True, validate=refuses)])["msg"]
    assert "hunter2" not in message
    assert "bXkg" not in message
    assert "(secret)" in message


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"path": "etc/x"}, "path must be an absolute path"),
        ({"mode": 420}, 'mode must be a quoted octal number like "0644"'),
        ({"mode": "644"}, 'mode must be a quoted octal number like "0644"'),
        ({"content": {"a": 1}}, "content must be a string, not dict; to_json makes one"),
        ({"contents": ""}, "files[0]: 'contents' is not known; known are content, group"),
        ({"validate": "true"}, "validate must have %s"),
        ({"owner": "no-such-user"}, "no-such-user"),
        ({"path": "/no/such/folder/a"}, "there is no folder /no/such/folder; list it in folders"),
    ],
)
def test_mistakes_are_named(run: Run, tmp_path: Path, change: dict[str, Any], message: str) -> None:
    result = run(files=[{**file(tmp_path / "a"), **change}])
    assert result["failed"] is True
    assert message in result["msg"]
    assert result["msg"].endswith("Nothing was changed.")
    assert names(tmp_path) == []


def test_a_file_listed_twice_is_refused(run: Run, tmp_path: Path) -> None:
    assert "listed twice" in run(files=[file(tmp_path / "a"), file(tmp_path / "x" / ".." / "a")])["msg"]


def test_an_owner_who_will_be_made_is_no_error_in_check_mode(run: Run, tmp_path: Path) -> None:
    files = [{**file(tmp_path / "a"), "owner": "no-such-user"}]
    assert run(check=True, files=files)["changed_paths"] == [str(tmp_path / "a")]


def test_candidates_of_a_killed_run_go_when_they_are_old(run: Run, tmp_path: Path) -> None:
    for name, age in ((".file_set-old", 7200), (".file_set-other", 60)):
        folder = tmp_path / name
        folder.mkdir()
        os.utime(folder, (folder.stat().st_mtime - age,) * 2)
    run(files=[file(tmp_path / "a")])
    assert names(tmp_path) == [".file_set-other", "a"]


def test_a_failure_while_renaming_says_what_is_new(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace = os.replace

    def rename(old: str, new: str) -> None:
        if new.endswith("b"):
            raise OSError(28, "No space left on device", new)
        replace(old, new)

    monkeypatch.setattr(os, "replace", rename)
    result = run(files=[file(tmp_path / "a"), file(tmp_path / "b")])
    assert "No space left on device" in result["msg"]
    assert result["msg"].endswith(f"Changed before that: {tmp_path / 'a'}")
    assert result["changed_paths"] == [str(tmp_path / "a")]
    assert names(tmp_path) == ["a"]
