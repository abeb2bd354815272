"""Errors, exit codes and global options of the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from outrider.cli.main import main
from outrider.cli.where import default_runtime

Outrider = Callable[..., int]
COMMANDS = ("status", "agents", "lookup", "calls", "breakers", "logs", "doctor", "start", "stop", "restart")


@pytest.mark.parametrize("words", [["nonsense"], [], ["status", "--wat"], ["logs", "X", "-n", "many"], ["start"]])
def test_wrong_usage_exits_2_with_one_message(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    err = capsys.readouterr().err
    assert err.startswith("outrider: ")
    assert "--help` shows what is allowed" in err


def test_with_json_an_error_is_json_on_stderr(outrider: Outrider, capsys: pytest.CaptureFixture[str]) -> None:
    for words, code in ((["--json", "nonsense"], 2), (["status", "--json"], 3), (["--json", "status"], 3)):
        assert outrider(*words) == code
        said = capsys.readouterr()
        assert said.out == ""
        found = json.loads(said.err)
        assert found.keys() == {"error", "hint", "exit_code"}
        assert found["exit_code"] == code


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    out = capsys.readouterr().out
    assert f"example: outrider {command}" in out
    assert "--json" in out


def test_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("outrider 0.")


def test_neither_shim_nor_consul_exits_3_and_names_both(
    outrider: Outrider, runtime: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert outrider("status") == 3
    err = capsys.readouterr().err
    assert f"no shim answers at {runtime}/outriderd.sock" in err
    assert "127.0.0.1:1" in err
    assert "`outrider doctor`" in err
    assert outrider("lookup", "Memory") == 3
    assert f"no catalogue in {runtime}" in capsys.readouterr().err
    assert outrider("restart", "Memory") == 1


def test_the_runtime_folder_is_named_or_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    (tmp_path / ".outrider" / "run").mkdir(parents=True)
    monkeypatch.chdir(deep)
    monkeypatch.delenv("OUTRIDER_RUNTIME", raising=False)
    assert default_runtime() == tmp_path / ".outrider" / "run"
    monkeypatch.setenv("OUTRIDER_RUNTIME", "/somewhere")
    assert default_runtime() == Path("/somewhere")


def run(*words: str, **environment: str) -> subprocess.Popen[str]:
    """The command in a process of its own."""
    return subprocess.Popen([sys.executable, "-m", "outrider.cli.main", *words], env={**os.environ, **environment},
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)  # fmt: skip


def test_a_reader_that_has_enough_is_no_error() -> None:
    process = run("--help")
    assert process.stdout is not None
    process.stdout.close()
    process.wait(20)
    assert process.stderr is not None
    assert process.stderr.read() == ""
    assert process.returncode == 0


def test_a_lookup_imports_no_rich_and_no_consul(runtime: Path) -> None:
    # Each costs about 100 ms, more than all the rest of the command.
    code = ("import sys; from outrider.cli.main import main; main(sys.argv[1:]); "
            "print(sorted({'rich', 'consul', 'yaml', 'asyncio', 'psutil'} & sys.modules.keys()))")  # fmt: skip
    from outrider.discovery.catalogue import CatalogueWriter
    from outrider.discovery.records import Entry

    writer = CatalogueWriter(runtime)
    writer.publish({"Idle": Entry("Idle")})
    done = subprocess.run([sys.executable, "-c", code, "--runtime", str(runtime), "lookup", "Idle"],
                          capture_output=True, text=True, check=True)  # fmt: skip
    writer.close()
    assert done.stdout.splitlines()[-1] == "[]"
