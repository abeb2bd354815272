"""What an agent's source says is read from its syntax, and nothing of it is run."""

from __future__ import annotations

from pathlib import Path

import pytest

from outrider.migration.risk import source
from outrider.migration.risk.source import read_source

AGENT = """
import sqlite3, json
from threading import Thread
import zmq.asyncio
from . import socket

class HealthServer:
    def load_config(self):
        return {}
"""


def test_what_is_imported_and_defined_is_found_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "main.py").write_text(AGENT)
    facts = read_source(tmp_path)
    assert (facts.files, facts.size, facts.lines) == (1, len(AGENT), 7)
    assert facts.sockets == ("zmq (app/main.py:4)",)
    assert facts.threads == ("threading (app/main.py:3)",)
    assert facts.databases == ("sqlite3 (app/main.py:2)",)
    assert facts.health == ("HealthServer (app/main.py:7)",)
    assert facts.config == ("load_config (app/main.py:8)",)


def test_nothing_is_run(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    read_source(tmp_path)
    assert not (tmp_path / "ran").exists()


def test_a_file_that_is_no_python_is_named_and_the_rest_read(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text("def (:\n")
    (tmp_path / "null.py").write_bytes(b"x = 1\0")
    (tmp_path / "deep.py").write_text("-" * 100_000 + "1")
    (tmp_path / "good.py").write_text("x = 1\n")
    facts = read_source(tmp_path)
    assert [line.partition(":")[0] for line in facts.unread] == ["bad.py", "deep.py", "null.py"]
    assert (facts.files, facts.lines) == (4, 1)


def test_what_is_installed_or_hidden_is_not_the_agents(tmp_path: Path) -> None:
    for folder in (".git", "venv", "node_modules", "__pycache__"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "other.py").write_text("import socket\n")
    (tmp_path / "link.py").symlink_to(tmp_path / "venv" / "other.py")
    (tmp_path / "main.py").write_text("x = 1\n")
    facts = read_source(tmp_path)
    assert (facts.files, facts.sockets) == (1, ())


def test_one_file_is_a_source_too(tmp_path: Path) -> None:
    (tmp_path / "agent.py").write_text("import socket\n")
    assert read_source(tmp_path / "agent.py").sockets == ("socket (agent.py:1)",)


def test_a_folder_without_python_or_with_far_too_much_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match=f"{tmp_path}: no Python file"):
        read_source(tmp_path)
    with pytest.raises(FileNotFoundError):
        read_source(tmp_path / "missing")
    monkeypatch.setattr(source, "MOST_FILES", 1)
    for name in ("a.py", "b.py"):
        (tmp_path / name).write_text("")
    with pytest.raises(ValueError, match="more than 1 Python files"):
        read_source(tmp_path)
