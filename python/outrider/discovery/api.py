"""What agents call: `lookup`, `watch` and their async twins."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from inotify_simple import INotify, flags

from outrider.discovery.reader import Catalogue
from outrider.discovery.records import Answer
from outrider.errors import CatalogueError

DEFAULT_RUNTIME = "/run/outrider"

_catalogues: dict[str, Catalogue] = {}


def runtime_dir() -> str:
    """The runtime folder: $OUTRIDER_RUNTIME, which every agent has, or /run/outrider."""
    return os.environ.get("OUTRIDER_RUNTIME", DEFAULT_RUNTIME)


def lookup(name: str, *, runtime: str | None = None) -> Answer:
    """Who serves agent `name` now, best first, with the age of that knowledge. Microseconds, from memory.

    Where no shim runs it asks Consul directly. Raises UnknownAgent, CatalogueError for a damaged catalogue, and
    ConsulUnreachable if there is neither a catalogue nor Consul.
    """
    folder = runtime or runtime_dir()
    catalogue = _catalogues.get(folder)
    if catalogue is None:
        if not (Path(folder) / "catalogue.head").exists():
            # Only here: the Consul client costs 80 ms of imports, which an agent beside a shim never needs.
            from outrider.discovery.direct import lookup_directly

            return lookup_directly(name)
        catalogue = _catalogues[folder] = Catalogue(Path(folder))
    return catalogue.lookup(name)


async def alookup(name: str, *, runtime: str | None = None) -> Answer:
    """`lookup` for coroutines: from memory at once, in a thread where Consul must be asked."""
    import asyncio

    folder = runtime or runtime_dir()
    if folder in _catalogues or (Path(folder) / "catalogue.head").exists():
        return lookup(name, runtime=folder)
    return await asyncio.to_thread(lookup, name, runtime=folder)


def watch(name: str, *, timeout_s: float | None = None, runtime: str | None = None) -> Iterator[Answer]:
    """Yield the answer of now, then every changed one. Ends after `timeout_s` without a change, if given.

    Sleeps in the kernel until the catalogue is published: no polling, no thread. Needs a catalogue on this host.
    """
    folder = runtime or runtime_dir()
    with _inotify(folder) as inotify:
        last = lookup(name, runtime=folder)
        yield last
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            left_ms = None if deadline is None else max(0, round((deadline - time.monotonic()) * 1000))
            if not inotify.read(timeout=left_ms):
                return
            now = lookup(name, runtime=folder)
            if _differs(now, last):
                last = now
                deadline = None if timeout_s is None else time.monotonic() + timeout_s
                yield now


async def awatch(name: str, *, runtime: str | None = None) -> AsyncIterator[Answer]:
    """`watch` for coroutines, on the running event loop."""
    import asyncio

    folder = runtime or runtime_dir()
    loop = asyncio.get_running_loop()
    woken = asyncio.Event()
    with _inotify(folder) as inotify:
        loop.add_reader(inotify.fileno(), woken.set)
        try:
            last = lookup(name, runtime=folder)
            yield last
            while True:
                await woken.wait()
                woken.clear()
                inotify.read(timeout=0)
                now = lookup(name, runtime=folder)
                if _differs(now, last):
                    last = now
                    yield now
        finally:
            loop.remove_reader(inotify.fileno())


def _inotify(folder: str) -> INotify:
    """Woken by each publication: the writer touches the head last."""
    inotify = INotify()
    try:
        inotify.add_watch(folder, flags.ATTRIB | flags.MOVED_TO)
    except OSError as error:
        inotify.close()
        raise CatalogueError(f"no catalogue in {folder}: {error.strerror}", hint="is the shim running here?") from error
    return inotify


def _differs(one: Answer, other: Answer) -> bool:
    return one.instances != other.instances or one.held != other.held
