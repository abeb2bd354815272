"""State of a running instance: backed up while it writes, refused while it runs, put back while it is stopped."""

from __future__ import annotations

import sqlite3
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from outrider.errors import BackupError
from outrider.fleet.spec import Agent
from outrider.host.config import load_config
from outrider.migration.backup import Desk, restoring

if TYPE_CHECKING:
    from integration.shim.shim_host import ShimHost

pytest_plugins = ("integration.shim.shim_host",)
# Each transaction writes the same number into two tables: whoever sees one without the other sees what never was.
LEDGER = """
import http.server, os, sqlite3, threading, time
database = sqlite3.connect(os.environ["OUTRIDER_STATE"] + "/ledger.db", isolation_level=None)
database.execute("PRAGMA journal_mode=WAL")
for table in "ab":
    database.execute(f"CREATE TABLE IF NOT EXISTS {table} (n)")
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.send_header("Content-Length", "2"); self.end_headers(); self.wfile.write(b"ok")
    def log_message(self, *args): pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["OUTRIDER_PORT"])), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
while True:
    database.execute("BEGIN")
    for table in "ab":
        database.execute(f"INSERT INTO {table} SELECT count(*) FROM a")
    database.execute("COMMIT")
    time.sleep(0.4)
"""


def rows(folder: Path) -> int:
    """How many transactions the ledger has; it must be whole."""
    with sqlite3.connect(folder / "ledger.db") as database:
        database.execute("BEGIN")  # both as they were at one moment: it writes meanwhile
        (a,), (b,) = (database.execute(f"SELECT count(*) FROM {table}").fetchone() for table in "ab")
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    database.close()
    assert a == b
    return int(a)


def test_a_writing_instance_is_backed_up_and_put_back(
    host: ShimHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.publish({"Ledger": Agent(command=(sys.executable, "-c", LEDGER), ports={"main": "auto"}, state=True)})
    host.start()
    host.wait(lambda: host.passing("Ledger"))
    desk = Desk(load_config(host.config), program=host.consul.binary)
    state = desk.config.agent_state / "Ledger-1"
    host.wait(lambda: rows(state) > 2)

    outcome = desk.create("Ledger")
    assert (outcome.failed, outcome.warnings) == ((), ())
    backup = desk.choose("Ledger-1", "state")
    assert backup.proof
    assert "1 SQLite databases" in backup.proof.checks
    assert host.passing("Ledger")
    desk.restore(backup, tmp_path / "copy")
    saved = rows(tmp_path / "copy")
    assert saved > 2

    host.wait(lambda: rows(state) > saved + 2)
    with monkeypatch.context() as patched:
        patched.setattr(restoring, "ENDING_S", 0.2)
        with pytest.raises(BackupError, match="Ledger-1 runs"):
            desk.restore(backup)
    host.request("POST", "/v1/agents/Ledger/stop")
    host.wait(lambda: (report := host.report("Ledger")) and report.status == "stopped")
    restored = desk.restore(backup)
    assert rows(state) == saved
    assert rows(Path(restored.kept)) > saved + 2
    host.request("POST", "/v1/agents/Ledger/start")
    host.wait(lambda: host.passing("Ledger"))
    host.wait(lambda: saved < rows(state))


def test_documents_put_back_start_what_was_lost(host: ShimHost) -> None:
    host.publish({"Alpha": replace(host.small, state=True)})
    host.start()
    host.wait(lambda: host.passing("Alpha"))
    desk = Desk(load_config(host.config), program=host.consul.binary)
    assert desk.create("Alpha", ["kv"]).failed == ()
    backup = desk.choose("Alpha", "kv")
    pid = host.pid("Alpha")
    host.unplace("Alpha")
    host.wait(lambda: host.report("Alpha") is None)
    desk.restore(backup)
    host.wait(lambda: host.passing("Alpha"))
    assert host.pid("Alpha") != pid
