"""The shim's configuration file as its command line reads it."""

from __future__ import annotations

from pathlib import Path

import pytest

from outrider.daemon.main import main
from outrider.errors import HostError
from outrider.host.config import load_config

GOOD = 'fleet = "f"\nhost = "h"\nruntime_dir = "/r"\nstate_dir = "/s"\nlog_dir = "/l"\n'


def written(folder: Path, text: str) -> Path:
    path = folder / "outriderd.toml"
    path.write_text(text)
    return path


def test_a_good_file_is_read_and_nothing_is_started(tmp_path: Path) -> None:
    path = written(tmp_path, GOOD)
    assert main(["--config", str(path), "--check-config"]) == 0
    assert load_config(path).releases == Path("/s/releases")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (GOOD.replace('fleet = "f"\n', ""), "fleet"),
        (GOOD + "http_prt = 1\n", "http_prt"),
        (GOOD + 'http_port = "1"\n', "http_port"),
        (GOOD + '[consul]\nscheme = "ftp"\n', "ftp"),
        ("fleet = ", "outriderd.toml"),
        (GOOD.replace('"/r"', "5"), "runtime_dir"),
    ],
)
def test_a_bad_file_is_refused_with_what_is_wrong(tmp_path: Path, text: str, said: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(HostError) as refused:
        load_config(path)
    assert str(path) in refused.value.message
    assert said in refused.value.message
    assert main(["--config", str(path), "--check-config"]) != 0


def test_a_missing_file_says_who_writes_it(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="No such file") as refused:
        load_config(tmp_path / "outriderd.toml")
    assert "site.yml" in refused.value.hint
