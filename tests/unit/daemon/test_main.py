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
        (GOOD + 'http_host = "10.0.0.1"\n', "10.0.0.1 would be served in the clear"),
        (GOOD + 'http_host = "0.0.0.0"\n', "0.0.0.0 would be served in the clear"),
        (GOOD + 'http_host = "gpu1"\n', "gpu1 would be served in the clear"),
        (GOOD + '[consul]\nservers = ["10.0.0.1:8501"]\n', "'10.0.0.1:8501', which is not like https"),
        (GOOD + '[consul]\nservers = ["https://10.0.0.1:85010000"]\n', "85010000"),
        (GOOD + '[http_tls]\nca_file = "/ca"\n', "cert_file"),
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


@pytest.mark.parametrize(
    "text",
    [
        'http_host = "127.0.0.2"\n',
        'http_host = "::1"\n',
        'http_host = "localhost"\n',
        # The files may come with the same run as this one, so only their names are looked at.
        'http_host = "10.0.0.1"\n[http_tls]\nca_file = "/no/ca"\ncert_file = "/no/cert"\nkey_file = "/no/key"\n',
    ],
)
def test_loopback_is_served_in_the_clear_and_all_else_with_tls(tmp_path: Path, text: str) -> None:
    assert main(["--config", str(written(tmp_path, GOOD + text)), "--check-config"]) == 0
