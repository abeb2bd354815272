"""Asking other shims and answering them. An answer is made within one turn of the loop, by a plain function."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Iterable

from outrider.host.peers.wire import Answer, Question

log = logging.getLogger("outrider.peers")

# host and payload to the answer; None for no answer. The same question may come more than once.
Handler = Callable[[str, bytes], bytes | None]

# A datagram may be lost; the question is sent again after so many seconds, until the time is over.
AGAIN_S = (0.03, 0.1, 0.2, 0.4, 0.8)
PAYLOAD_BYTES = 1000


class _Open:
    """A question on its way."""

    def __init__(self, hosts: Iterable[str]) -> None:
        self.waiting = set(hosts)
        self.answers: dict[str, bytes] = {}
        self.complete = asyncio.Event()


class Questions:
    """The questions of this shim that are open, and what it answers to others'."""

    def __init__(self, send: Callable[[Question, Iterable[str]], None]) -> None:
        self._send = send
        self._open: dict[int, _Open] = {}
        self._handlers: dict[str, Handler] = {}

    def answer(self, kind: str, handler: Handler) -> None:
        """Answer questions of a kind with what `handler` returns."""
        self._handlers[kind] = handler

    async def ask(self, kind: str, payload: bytes, hosts: Iterable[str], timeout_s: float) -> dict[str, bytes]:
        """Ask hosts, and return the answers that came in time. Returns early when all answered."""
        if len(payload) > PAYLOAD_BYTES:
            raise ValueError(f"a question of {len(payload)} bytes; {PAYLOAD_BYTES} fit into a datagram")
        question = Question(secrets.randbits(63), kind, payload)
        asked = self._open[question.nonce] = _Open(hosts)
        if not asked.waiting:
            asked.complete.set()
        loop = asyncio.get_running_loop()
        self._send(question, asked.waiting)
        again = [loop.call_later(s, self._send_again, question) for s in AGAIN_S if s < timeout_s]
        try:
            async with asyncio.timeout(timeout_s):
                await asked.complete.wait()
        except TimeoutError:
            pass
        finally:
            del self._open[question.nonce]
            for timer in again:
                timer.cancel()
        return asked.answers

    def asked(self, host: str, question: Question) -> Answer | None:
        """What to answer a host, if anything."""
        handler = self._handlers.get(question.kind)
        if handler is None:
            return None
        try:
            payload = handler(host, question.payload)
        except Exception:
            log.exception("a defect while answering %r of %s; it gets no answer", question.kind, host)
            return None
        return None if payload is None else Answer(question.nonce, payload)

    def answered(self, host: str, answer: Answer) -> None:
        """An answer came; one that nobody waits for any more is dropped."""
        asked = self._open.get(answer.nonce)
        if asked is None or host not in asked.waiting:
            return
        asked.waiting.discard(host)
        asked.answers[host] = answer.payload
        if not asked.waiting:
            asked.complete.set()

    def _send_again(self, question: Question) -> None:
        if asked := self._open.get(question.nonce):
            self._send(question, asked.waiting)
