"""What the source code of an agent says about it, by parsing: nothing of it is imported or run."""

from __future__ import annotations

import ast
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

MOST_FILES = 20_000
MOST_BYTES = 8 << 20  # of one file; what is larger is data
ASIDE = {"__pycache__", "node_modules", "site-packages", "venv", "build", "dist"}

# The first part of what is called or imported, to what it shows.
SOCKETS = {"socket", "zmq", "websockets", "aiohttp", "grpc", "flask", "fastapi", "uvicorn", "socketserver"}
THREADS = {"threading", "multiprocessing", "concurrent"}
DATABASES = {"sqlite3", "psycopg", "psycopg2", "sqlalchemy", "redis", "pymongo", "lmdb", "plyvel", "shelve", "dbm"}
DATABASES |= {"duckdb", "pymysql", "asyncpg", "aiosqlite", "chromadb", "faiss"}


class SourceFacts(Struct, frozen=True):
    """Of all Python files of a folder.

    size: bytes; lines: those that are not blank
    sockets, threads, databases: modules of that kind that are imported, each with the place of its first import
    health, config: places of functions and classes that answer health checks, or read configuration, by themselves
    unread: files that are not valid Python, each with the reason
    """

    files: int
    size: int
    lines: int
    sockets: tuple[str, ...] = ()
    threads: tuple[str, ...] = ()
    databases: tuple[str, ...] = ()
    health: tuple[str, ...] = ()
    config: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()


def read_source(folder: Path) -> SourceFacts:
    """Parse every Python file below `folder`. Raises OSError if it cannot be listed, ValueError if it has none."""
    files = sorted(_python_files(folder))
    if not files:
        raise ValueError(f"{folder}: no Python file below it")
    size = lines = 0
    kinds: dict[str, dict[str, str]] = {"sockets": {}, "threads": {}, "databases": {}}
    own: dict[str, list[str]] = {"health": [], "config": []}
    unread = []
    for file in files:
        where = file.relative_to(folder).as_posix() if folder.is_dir() else file.name
        try:
            content = file.read_bytes()
            tree = _parse(content)
        except (OSError, SyntaxError, ValueError, RecursionError, MemoryError) as error:
            unread.append(f"{where}: {type(error).__name__}")
            continue
        size += len(content)
        lines += sum(1 for line in content.splitlines() if line.strip())
        for kind, module, line in _imports(tree):
            kinds[kind].setdefault(module, f"{module} ({where}:{line})")
        for kind, name, line in _own(tree):
            own[kind].append(f"{name} ({where}:{line})")
    return SourceFacts(
        files=len(files),
        size=size,
        lines=lines,
        **{kind: tuple(found.values()) for kind, found in kinds.items()},
        **{kind: tuple(found) for kind, found in own.items()},
        unread=tuple(unread),
    )


def _python_files(folder: Path) -> Iterator[Path]:
    if folder.is_file():
        yield folder
        return
    count = 0
    for place, folders, names in os.walk(folder, onerror=_refuse):
        folders[:] = sorted(name for name in folders if name not in ASIDE and not name.startswith("."))
        for name in names:
            file = Path(place, name)
            if not name.endswith(".py") or file.is_symlink() or file.stat().st_size > MOST_BYTES:
                continue
            count += 1
            if count > MOST_FILES:
                raise ValueError(f"{folder}: more than {MOST_FILES:,} Python files; name the agent's own folder")
            yield file


def _refuse(error: OSError) -> None:
    raise error


def _parse(content: bytes) -> ast.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those about the agent's code are not ours to print
        return ast.parse(content)


def _imports(tree: ast.Module) -> Iterator[tuple[str, str, int]]:
    kinds = (("sockets", SOCKETS), ("threads", THREADS), ("databases", DATABASES))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module]
        else:
            continue
        for name in names:
            first = name.partition(".")[0]
            for kind, modules in kinds:
                if first in modules:
                    yield kind, first, node.lineno


def _own(tree: ast.Module) -> Iterator[tuple[str, str, int]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            name = node.name.lower()
            if "health" in name or "heartbeat" in name:
                yield "health", node.name, node.lineno
            elif "config" in name or "settings" in name:
                yield "config", node.name, node.lineno
