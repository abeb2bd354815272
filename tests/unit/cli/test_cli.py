"""The command line against a shim's real socket: output, JSON and exit codes."""

from __future__ import annotations

import http.server
import json
import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from outrider.cli.main import main
from outrider.discovery.catalogue import CatalogueWriter
from outrider.discovery.records import Entry, Instance
from outrider.host.reports import (
    ActionReport,
    DoctorReport,
    Finding,
    InstanceReport,
    StatusReport,
    Summary,
    status_said,
)

ROOT = Path(__file__).resolve().parents[3]


def report(status: str) -> InstanceReport:
    return msgspec.convert(
        {"agent": "Memory", "instance": "Memory-1", "host": "gpu1", "address": "127.0.0.1", "port": 7000,
         "status": status, "role": "replica", "epoch": 0, "version": "abc", "since": 1.0, "age_s": 0.0,
         "detail": "exited: killed by SIGKILL", "pid": 12},
        InstanceReport,
    )  # fmt: skip


class Shim:
    """Answers as the shim's API does, on a Unix socket."""

    def __init__(self, runtime: Path) -> None:
        self.status = "passing"
        shim = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer(shim.get(self.path))

            def do_POST(self) -> None:
                known = self.path.split("/")[3] == "Memory"
                answer = ActionReport("restart", ("Memory-1",)) if known else {"error": "no agent X", "hint": "look"}
                self._answer(answer, 200 if known else 404)

            def _answer(self, value: object, status: int = 200) -> None:
                body = value if isinstance(value, bytes) else msgspec.json.encode(value)
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def address_string(self) -> str:
                return "test"

            def log_message(self, format: str, *args: object) -> None:
                del format, args

        self.server = socketserver.ThreadingUnixStreamServer(str(runtime / "outriderd.sock"), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def get(self, path: str) -> object:
        if path.startswith("/v1/status"):
            summary = Summary(agents=1, instances=1, passing=int(self.status == "passing"), hosts=1)
            return StatusReport("lab", summary, (report(self.status),))
        if path.startswith("/v1/logs"):
            return b"hello from the log\n"
        return DoctorReport("gpu1", (Finding("consul", self.status == "passing", "seen", "mend it"),))


@pytest.fixture
def shim(tmp_path: Path) -> Iterator[Shim]:
    made = Shim(tmp_path)
    yield made
    made.server.shutdown()
    made.server.server_close()


def run(tmp_path: Path, *words: str) -> int:
    return main(["--runtime", str(tmp_path), *words])


def test_status_shows_what_is_wrong_first_and_exits_1(
    shim: Shim, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, "status") == 0
    assert "1/1 passing" in capsys.readouterr().out
    shim.status = "critical"
    assert run(tmp_path, "status") == 1
    out = capsys.readouterr().out
    assert "0/1 passing" in out
    assert "exited: killed by SIGKILL" in out


def test_status_shows_who_lacks_a_need_with_the_reason_and_is_content(
    shim: Shim, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shim.status = "warning"
    assert run(tmp_path, "status") == 0
    out = capsys.readouterr().out
    assert "1 warning" in out
    assert "exited: killed by SIGKILL" in out  # the detail, whatever it is


@pytest.mark.parametrize(
    ("output", "status"),
    [("parked: failed 10 times", "parked"), ("starting: not ready yet", "starting"), ("probe: no", "critical")],
)
def test_the_output_of_another_hosts_check_names_its_status(output: str, status: str) -> None:
    assert status_said(output) == status


def test_status_json_has_the_promised_keys(shim: Shim, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, "status", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["fleet"] == "lab"
    promised = {"agent", "instance", "host", "address", "port", "status", "role", "epoch", "version", "since", "age_s"}
    assert promised <= found["instances"][0].keys()


def test_lookup_answers_from_the_catalogue(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    writer = CatalogueWriter(tmp_path)
    instance = Instance("Memory", "Memory-1", "gpu1", "127.0.0.1", 7000, {"main": 7000})
    writer.publish({"Memory": Entry("Memory", (instance,)), "Idle": Entry("Idle")})
    assert run(tmp_path, "lookup", "Memory", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found.keys() == {"agent", "instances", "age_s", "source"}
    assert found["instances"][0]["port"] == 7000
    assert run(tmp_path, "lookup", "Idle") == 1
    assert run(tmp_path, "lookup", "Memroy") == 1
    assert "did you mean Memory" in capsys.readouterr().err
    writer.close()


def test_logs_agents_and_restart(shim: Shim, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, "logs", "Memory") == 0
    assert capsys.readouterr().out == "hello from the log\n"
    assert run(tmp_path, "agents", "Memory") == 0
    assert run(tmp_path, "agents", "Memry") == 1
    assert run(tmp_path, "restart", "Memory", "--no-wait", "--json") == 0
    capsys.readouterr()
    assert run(tmp_path, "restart", "Other", "--no-wait") == 1
    assert "no agent or instance Other" in capsys.readouterr().err


def test_doctor_names_what_to_mend_with_and_without_a_shim(
    shim: Shim, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    CatalogueWriter(tmp_path).publish({})
    shim.status = "critical"
    assert run(tmp_path, "doctor") == 1
    assert "mend it" in capsys.readouterr().out
    assert run(tmp_path / "nowhere", "doctor") == 1


def test_fleet_verbs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fleet = str(ROOT / "inventories/reference/fleet.yml")
    assert main(["fleet", "validate", fleet, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["agents"], found["instances"], found["needs"], len(found["cycles"])) == (76, 77, 140, 1)
    assert main(["fleet", "graph", fleet]) == 0
    assert "cycle, started together" in capsys.readouterr().out
    assert main(["fleet", "show", fleet, "--agent", "TTSService"]) == 0
    assert "was main_pc_code/services/tts_service.py" in capsys.readouterr().out
    bad = tmp_path / "fleet.yml"
    bad.write_text("fleet: x\ngroups: {a: {agents: {A: {modul: x}}}}\n")
    assert main(["fleet", "validate", str(bad)]) == 1
    assert "did you mean `module`" in capsys.readouterr().err
    assert main(["fleet", "validate", str(bad), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["ok"] is False
