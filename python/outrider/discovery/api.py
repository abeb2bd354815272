"""What agents call: `lookup`, `watch` and their async twins."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

from inotify_simple import Event, INotify, flags

from outrider.discovery.reader import Catalogue
from outrider.discovery.records import Answer
from outrider.errors import CatalogueError, ConsulError, OutriderError, UnknownAgent

DEFAULT_RUNTIME = "/run/outrider"
HEAD = "catalogue.head"
# A shim that lives confirms every second; an election takes three.
GIVEN_UP_S = 10.0

_catalogues: dict[str, Catalogue] = {}


def runtime_dir() -> str:
    """The runtime folder: $OUTRIDER_RUNTIME, which every agent has, or /run/outrider."""
    return os.environ.get("OUTRIDER_RUNTIME", DEFAULT_RUNTIME)


def lookup(name: str, *, runtime: str | None = None) -> Answer:
    """Who serves agent `name` now, best first, with the age of that knowledge. Microseconds, from memory.

    Which instances those are, and why a mass failure does not empty them, says `routing.routing_set`. Where no shim
    runs, or the name is unknown to a catalogue that nobody confirms any more, Consul is asked. Raises UnknownAgent,
    CatalogueError for a damaged catalogue, and ConsulError if there is no catalogue and Consul does not answer.
    """
    folder = runtime or runtime_dir()
    catalogue = _catalogues.get(folder) or _open(folder)
    if catalogue is None:
        return _ask_consul(name)
    try:
        return catalogue.lookup(name)
    except UnknownAgent as unknown:
        if not _given_up(catalogue):
            raise
        return _ask_consul_instead(name, unknown)


async def alookup(name: str, *, runtime: str | None = None) -> Answer:
    """`lookup` for coroutines: from memory at once, in a thread where Consul must be asked."""
    import asyncio

    folder = runtime or runtime_dir()
    catalogue = _catalogues.get(folder) or _open(folder)
    if catalogue is None:
        return await asyncio.to_thread(_ask_consul, name)
    try:
        return catalogue.lookup(name)
    except UnknownAgent as unknown:
        if not _given_up(catalogue):
            raise
        return await asyncio.to_thread(_ask_consul_instead, name, unknown)


def lost_hosts(name: str, runtime: str) -> tuple[str, ...]:
    """The hosts of agent `name` that are lost, from a catalogue that this process has read; Consul is never asked."""
    catalogue = _catalogues.get(runtime)
    try:
        return catalogue.lookup(name).lost if catalogue else ()
    except OutriderError:
        return ()


def watch(name: str, *, timeout_s: float | None = None, runtime: str | None = None) -> Iterator[Answer]:
    """Yield the answer of now, then every changed one. Ends after `timeout_s` without a change, if given.

    Sleeps in the kernel until the catalogue is published: no polling, no thread. Needs a runtime folder on this host,
    and hears nothing more if that is deleted. Raises what `lookup` does: UnknownAgent when the agent leaves the fleet.
    """
    folder = runtime or runtime_dir()
    with _inotify(folder) as inotify:
        last = lookup(name, runtime=folder)
        yield last
        deadline = _deadline(timeout_s)
        while True:
            left_ms = None if deadline is None else max(0, round((deadline - time.monotonic()) * 1000))
            events = inotify.read(timeout=left_ms)
            if not events:
                return
            if not _published(events, folder):
                continue
            now = lookup(name, runtime=folder)
            if _differs(now, last):
                last = now
                yield now
                deadline = _deadline(timeout_s)


async def awatch(name: str, *, runtime: str | None = None) -> AsyncIterator[Answer]:
    """`watch` for coroutines, on the running event loop."""
    import asyncio

    folder = runtime or runtime_dir()
    loop = asyncio.get_running_loop()
    woken = asyncio.Event()
    with _inotify(folder) as inotify:
        loop.add_reader(inotify.fileno(), woken.set)
        try:
            last = await alookup(name, runtime=folder)
            yield last
            while True:
                await woken.wait()
                woken.clear()
                if not _published(inotify.read(timeout=0), folder):
                    continue
                now = await alookup(name, runtime=folder)
                if _differs(now, last):
                    last = now
                    yield now
        finally:
            loop.remove_reader(inotify.fileno())


def _open(folder: str) -> Catalogue | None:
    """The catalogue of a folder, from now on kept; None where no shim ever ran."""
    if not (Path(folder) / HEAD).exists():
        return None
    catalogue = _catalogues[folder] = Catalogue(Path(folder))
    return catalogue


def _given_up(catalogue: Catalogue) -> bool:
    """True if an unknown name may just be newer than what the catalogue holds."""
    return catalogue.retired or catalogue.age_s > GIVEN_UP_S


def _ask_consul(name: str) -> Answer:
    # Only here: the Consul client costs 80 ms of imports, which an agent beside a shim never needs.
    from outrider.discovery.direct import lookup_directly

    return lookup_directly(name)


def _ask_consul_instead(name: str, unknown: UnknownAgent) -> Answer:
    try:
        return _ask_consul(name)
    except ConsulError:
        raise unknown from None


def _inotify(folder: str) -> INotify:
    """Woken by each publication, which touches the head last, and by a head that is moved into place."""
    inotify = INotify()
    try:
        inotify.add_watch(folder, flags.ATTRIB | flags.MOVED_TO)
    except OSError as error:
        inotify.close()
        raise CatalogueError(f"no catalogue in {folder}: {error.strerror}", hint="is the shim running here?") from error
    return inotify


def _published(events: Sequence[Event], folder: str) -> bool:
    """True if the events tell of the catalogue, and not of another file of its folder."""
    if not any(event.name == HEAD for event in events):
        return False
    if catalogue := _catalogues.get(folder):
        catalogue.refresh()
    return True


def _deadline(timeout_s: float | None) -> float | None:
    return None if timeout_s is None else time.monotonic() + timeout_s


def _differs(one: Answer, other: Answer) -> bool:
    return one.instances != other.instances or one.held != other.held
