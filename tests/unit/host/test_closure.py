"""Of a lock that pins more, hosts get what the project reaches on their Python and architecture, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from outrider.errors import ReleaseError
from outrider.host.closure import Pins, closure

Find = Callable[..., Pins]


@pytest.fixture
def find(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Find:
    """The closure of a project that needs `needs`, among the installed `packages` (name==version: what it needs)."""
    monkeypatch.syspath_prepend(str(tmp_path / "site"))

    def call(
        needs: list[str],
        packages: dict[str, list[str]],
        *,
        lock: list[str] | None = None,
        extras: tuple[str, ...] = (),
        alone: str = "",
        python_version: str = "3.11",
        architecture: str = "x86_64",
    ) -> Pins:
        for package, wants in packages.items():
            name, version = package.split("==")
            info = tmp_path / "site" / f"{name.replace('-', '_')}-{version}.dist-info"
            info.mkdir(parents=True)
            lines = [f"Name: {name}", f"Version: {version}", *(f"Requires-Dist: {want}" for want in wants), ""]
            (info / "METADATA").write_text("\n".join(lines))
        project = '[project]\nname = "p"\ndependencies = %s\noptional-dependencies = {more = ["tiny-d"]}\n'
        (tmp_path / "pyproject.toml").write_text(project % needs)
        (tmp_path / "lock").write_text("# pinned\n" + "\n".join(lock or list(packages)))
        (tmp_path / "alone").write_text(alone)
        return closure(tmp_path, extras, [tmp_path / "alone"], tmp_path / "lock", python_version, architecture)

    return call


CHAIN = {"tiny-a==1": ["tiny_B>=2"], "tiny-b==2": ["tiny-c"], "tiny-c==3": ["tiny-a"], "tiny-d==4": []}


def test_what_is_reached_is_taken_and_the_rest_is_not(find: Find) -> None:
    assert find(["Tiny.A"], CHAIN) == {"tiny-a": "1", "tiny-b": "2", "tiny-c": "3"}


def test_an_extra_of_the_project_adds_what_it_names(find: Find) -> None:
    assert find([], CHAIN, extras=("more",)) == {"tiny-d": "4"}


def test_an_unknown_extra_is_refused(find: Find) -> None:
    with pytest.raises(ReleaseError, match="no extra less"):
        find([], CHAIN, extras=("less",))


def test_an_extra_of_a_dependency_adds_what_it_names(find: Find) -> None:
    packages = {"tiny-a==1": ["tiny-b; extra == 'fast'", "tiny-c; extra == 'slow'"], "tiny-b==2": [], "tiny-c==3": []}
    assert find(["tiny-a", "tiny-a[fast]"], packages) == {"tiny-a": "1", "tiny-b": "2"}


@pytest.mark.parametrize(
    ("python_version", "architecture", "found"),
    [("3.11", "x86_64", {"tiny-b"}), ("3.12", "x86_64", set()), ("3.12", "aarch64", {"tiny-c"})],
)
def test_markers_are_those_of_the_hosts(find: Find, python_version: str, architecture: str, found: set[str]) -> None:
    needs = ["tiny-b; python_version < '3.12'", "tiny-c; platform_machine == 'aarch64'", "tiny-d; os_name == 'nt'"]
    packages = {"tiny-a==1": needs, "tiny-b==2": [], "tiny-c==3": [], "tiny-d==4": []}
    assert find(["tiny-a"], packages, python_version=python_version, architecture=architecture).keys() == {
        "tiny-a",
        *found,
    }


def test_what_stands_alone_brings_nothing_that_it_needs(find: Find) -> None:
    assert find([], CHAIN, alone="# models\n\ntiny-b >= 1  # small\n") == {"tiny-b": "2"}


@pytest.mark.parametrize(
    ("lock", "message"),
    [
        (["tiny-a==1"], "tiny_B>=2 is needed and not pinned"),
        (["tiny-a==1", "tiny-b==1"], "tiny-b==1 is not tiny_B>=2"),
        (["tiny-a==2"], "tiny-a 1 is installed here, and the lock says 2"),
        (["tiny-a==1", "tiny-b>=2"], "tiny-b>=2 is not pinned to one version"),
        (["tiny-a=1"], "Expected"),
    ],
)
def test_a_lock_that_does_not_fit_is_refused(find: Find, lock: list[str], message: str) -> None:
    with pytest.raises(ReleaseError, match=message):
        find(["tiny-a"], CHAIN, lock=lock)


def test_what_is_not_installed_here_cannot_be_walked(find: Find) -> None:
    with pytest.raises(ReleaseError, match="tiny-x==1 of the lock is not installed here"):
        find(["tiny-x"], CHAIN, lock=["tiny-x==1"])
