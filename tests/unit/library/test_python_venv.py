"""A venv is there complete or not at all, and what runs keeps the venv that it began in."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_wheels import module_runner, real_pip, tar_of, tiny_wheel

from unit.library.as_ansible import Run

Make = Callable[[str], tuple[str, str]]
MAIN = """
import sys
def main():
    print("began", flush=True)
    sys.stdin.readline()
    import tiny_late
    print(tiny_late.VERSION)
"""


@pytest.fixture(scope="module")
def pip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return real_pip(tmp_path_factory.mktemp("pip"))


@pytest.fixture
def make(pip: Path, tmp_path: Path) -> Make:
    """An archive that installs the program tiny-say, which imports what says its version late; and its digest."""

    def call(version: str) -> tuple[str, str]:
        files = {"tiny_say.py": MAIN, "tiny_late.py": f"VERSION = {version!r}\n"}
        wheel = tiny_wheel(tmp_path / version, "tiny_say", version, files, entry="tiny-say = tiny_say:main")
        archive, digest = tar_of([pip, wheel], tmp_path)
        return str(archive), digest

    return call


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    run = module_runner("python_venv", capsys, monkeypatch)

    def call(archive: str, digest: str, **more: Any) -> dict[str, Any]:
        folders = {"venvs_folder": str(tmp_path / "opt" / "venvs"), "link": str(tmp_path / "opt" / "venv")}
        return run(archive=archive, digest=digest, **{**folders, "python": sys.executable, **more})

    return call


@pytest.fixture
def link(tmp_path: Path) -> Path:
    return tmp_path / "opt" / "venv"


def venvs(link: Path) -> set[str]:
    return {path.name for path in (link.parent / "venvs").glob("*")}


def stand_in(link: Path, *names: str) -> None:
    """Complete venvs with nothing in them but an interpreter; the last one is linked."""
    for name in names:
        venv = link.parent / "venvs" / name
        (venv / "bin").mkdir(parents=True)
        (venv / "bin" / "python").symlink_to(sys.executable)
        (venv / ".complete").touch()
        link.unlink(missing_ok=True)
        link.symlink_to(venv)


def says(link: Path) -> str:
    ran = subprocess.run([link / "bin" / "tiny-say"], input="\n", capture_output=True, text=True, check=True)
    return ran.stdout.split()[1]


def begin(*command: str | Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdout.readline() == "began\n"
    return process


def finish(process: subprocess.Popen[str]) -> str:
    return process.communicate("\n", timeout=20)[0].strip()


def test_the_venv_is_made_once_and_its_programs_run(run: Run, make: Make, link: Path) -> None:
    archive, digest = make("1")
    made = run(archive, digest)
    assert made["changed"] is True
    assert made["python"] == str(link / "bin" / "python")
    assert made["diff"] == {"before": "", "after": f"{digest}\n", "before_header": str(link)}
    assert says(link) == "1"
    Path(archive).unlink()
    again = run(archive, digest)
    assert again["changed"] is False
    assert again["python"] == made["python"]


def test_all_users_can_run_it_and_nothing_is_left_to_compile(run: Run, make: Make, link: Path) -> None:
    before = os.umask(0o077)
    try:
        run(*make("1"))
    finally:
        os.umask(before)
    paths = [*link.parent.rglob("*"), link.parent]
    assert [path for path in paths if not path.is_symlink() and path.stat().st_mode & 0o044 != 0o044] == []
    sources = {path.stem for path in link.glob("lib/*/site-packages/*.py")}
    compiled = {path.name.split(".")[0] for path in link.glob("lib/*/site-packages/__pycache__/*.pyc")}
    assert sources == compiled


def test_check_mode_only_predicts(run: Run, make: Make, link: Path) -> None:
    predicted = run("/no/such/archive", "not built yet", check=True)
    assert predicted["changed"] is True
    assert not link.parent.exists()
    archive, digest = make("1")
    run(archive, digest)
    assert run(archive, digest, check=True)["changed"] is False


@pytest.mark.parametrize("harm", ["other digest", "no archive", "no tar", "no pip", "bad wheel", "bad python"])
def test_it_is_there_complete_or_not_at_all(
    run: Run, make: Make, pip: Path, link: Path, tmp_path: Path, harm: str
) -> None:
    stand_in(link, "one")
    (archive, digest), more = make("2"), {}
    if harm == "other digest":
        digest = "0" * 64
    elif harm == "no archive":
        archive = "/no/such/archive"
    elif harm == "no tar":
        Path(archive).write_text("no tar")
    elif harm == "no pip":
        archive, digest = map(str, tar_of([tiny_wheel(tmp_path, "tiny_x", "1", {})], tmp_path))
    elif harm == "bad python":
        more = {"python": "/bin/false"}
    else:
        (tmp_path / "tiny_bad-1-py3-none-any.whl").write_text("no wheel")
        archive, digest = map(str, tar_of([pip, tmp_path / "tiny_bad-1-py3-none-any.whl"], tmp_path))
    assert run(archive, digest, **more)["failed"]
    assert venvs(link) == {"one"}
    assert link.readlink().name == "one"


def test_what_an_interrupted_run_left_is_made_anew(run: Run, make: Make, link: Path) -> None:
    archive, digest = make("1")
    run(archive, digest)
    for lost in (".complete", "bin/python", "bin/tiny-say"):
        (link / lost).unlink()
    (link.parent / "venvs" / ".wheels-left").mkdir()
    (link.parent / "venvs" / "half").mkdir()
    assert run(archive, digest)["changed"] is True
    assert says(link) == "1"
    assert venvs(link) == {digest}


def test_the_way_back_needs_no_archive(run: Run, link: Path) -> None:
    stand_in(link, "one", "two")
    back = run("/no/such/archive", "one")
    assert (back["changed"], back["diff"]["before"], back["diff"]["after"]) == (True, "two\n", "one\n")
    assert link.readlink() == link.parent / "venvs" / "one"
    assert run("/no/such/archive", "one")["changed"] is False


def test_the_linked_venv_and_the_one_before_stay(run: Run, link: Path) -> None:
    stand_in(link, "one", "two")
    run("/no/such/archive", "one")
    stand_in(link.with_name("other"), "three")
    run("/no/such/archive", "three")
    assert venvs(link) == {"one", "three"}


def test_what_was_started_through_the_link_keeps_its_venv(run: Run, make: Make, link: Path) -> None:
    run(*make("1"))
    process = begin(link / "bin" / "python", "-c", "import tiny_say; tiny_say.main()")
    run(*make("2"))
    assert finish(process) == "1"
    assert says(link) == "2"


def test_a_venv_that_a_process_uses_is_not_removed(run: Run, make: Make, link: Path) -> None:
    (one, old), two = make("1"), make("2")
    run(one, old)
    process = begin(link / "bin" / "tiny-say")
    run(*two, keep=1)
    assert venvs(link) == {old, two[1]}
    assert finish(process) == "1"
    run(*make("3"), keep=1)
    assert old not in venvs(link)


def test_what_is_no_link_is_left_alone(run: Run, make: Make, link: Path) -> None:
    link.mkdir(parents=True)
    assert "is no symbolic link" in run(*make("1"))["msg"]
    assert link.is_dir()
