"""The protocol of one call, without its input and output: which instance next, wait or give up, what came of it.

Both clients drive it: `next_peer`, an exchange, then `answered` or `failed`, until the one returns or the other raises.
"""

from __future__ import annotations

import random
from typing import Any

import msgspec

from outrider.calls import arrays, context
from outrider.calls.breaker import Outcome
from outrider.calls.frames import Refusal, Reply
from outrider.calls.target import Peer, Place, Target
from outrider.discovery.records import Answer, Instance
from outrider.errors import (
    REFUSALS,
    CallError,
    CallFailed,
    CallRefused,
    CallTimeout,
    ConnectionLost,
    Draining,
    NoInstance,
    NotHolder,
    Overloaded,
)

# Full jitter (Brooker): anything from nothing to a bound that doubles.
FIRST_PAUSE_S, MOST_PAUSE_S = 0.02, 0.25
POLL_S, MOST_POLL_S = 0.0005, 0.01
# Who says that it does not hold the lease is asked again after a time that doubles, while it is still named alone.
REFUSED_S, MOST_REFUSED_S = 0.005, 0.05
SOON_S = 0.2  # a circuit that is tried again within this is waited for
MOST_POLLS = 60
DRAINED_S = 1.0  # by then the catalogue has no instance that is stopping
TRIAL_SHARE = 0.3  # of the time left, where another instance can still be asked after it
FAIR_S = 0.05  # who had less time than this, and less than a call of its kind gets, is not to blame for its end

_NOTHING: frozenset[Place] = frozenset()


class Plan:
    """One call of `method`. `until` and every `now` are seconds of the monotonic clock."""

    __slots__ = (
        *("_attempts", "_began", "_idempotent", "_pause_s", "_peer", "_permit", "_polls", "_rng", "_sent_at"),
        *("_refusals", "_refused", "_refused_until", "_timeout_s", "_tried", "_waits_for"),
        *("attempt_until", "in_need", "method", "target", "trace", "until"),
    )

    def __init__(
        self, target: Target, method: str, timeout_s: float, idempotent: bool, now: float, rng: random.Random
    ) -> None:
        self.target = target
        self.method = method
        self.trace = context.next_traceparent()
        above = context.deadline.get()
        self.until = now + timeout_s if above is None else min(now + timeout_s, above)
        self.attempt_until = self.until
        self.in_need = False  # its host was known to be lost before this attempt
        self._began = now
        self._timeout_s = timeout_s
        self._idempotent = idempotent
        self._rng = rng
        self._attempts = 0
        self._polls = 0
        self._pause_s = 0.0
        self._waits_for: CallError | None = None
        self._tried = _NOTHING
        self._peer: Peer | None = None
        self._permit = 0
        self._refusals = 0
        self._refused: Instance | None = None
        self._refused_until = 0.0
        self._sent_at = 0.0
        target.budget.called()

    def next_peer(self, answer: Answer, now: float) -> Peer | float:
        """The instance to ask now, or the seconds to wait before looking again. Raises CallTimeout and NoInstance."""
        target = self.target
        target.follow(answer, now)
        if now >= self.until:
            raise self._named(self._waits_for or CallTimeout("the time for it was over before it could be sent"))
        if answer.held:
            return self._poll(now, CallTimeout("it was held all the time"))
        if self._pause_s:
            pause_s, self._pause_s = self._pause_s, 0.0
            return min(pause_s, self.until - now)
        if not answer.instances:
            nobody = NoInstance(f"nobody serves {target.agent}", hint=f"`outrider agents {target.agent}`")
            if now - target.served_at < target.settings.absent_s:
                return self._poll(now, nobody)
            raise self._named(nobody)
        if now < self._refused_until and answer.instances == (self._refused,):
            return self._poll(now, NotHolder(f"{answer.instances[0].instance} passes its lease on"))
        chosen = target.choose(now, self.until, self._idempotent, self._tried)
        if chosen is None:
            return self._refused_by_circuits(now)
        self._peer, self._permit = chosen
        self.in_need = self._peer.instance.host in answer.lost
        self._attempts += 1
        self._sent_at = now
        self.attempt_until = self.until
        if not self._peer.breaker.is_closed and self._idempotent and len(target.peers) > 1:
            self.attempt_until = now + (self.until - now) * TRIAL_SHARE
        return self._peer

    def answered(self, reply: Reply | Refusal, buffers: memoryview | None, decoder: Any, now: float) -> Any:
        """The value that the method returned. Raises a CallError, to be given to `failed`."""
        assert self._peer is not None
        target = self.target
        if isinstance(reply, Refusal):
            raise REFUSALS.get(reply.kind, CallFailed)(reply.message)
        if reply.epoch < target.epoch:
            raise NotHolder(f"its epoch {reply.epoch} is over, {target.epoch} is known")
        target.epoch = reply.epoch
        try:
            value = arrays.decode(decoder, reply.body, buffers)
        except (msgspec.MsgspecError, ValueError, TypeError) as error:
            raise CallFailed(f"the reply is not what was expected: {error}") from error
        self.succeeded(now)
        return value

    def succeeded(self, now: float) -> None:
        """Note that the instance answered."""
        assert self._peer is not None
        took_s = now - self._sent_at
        slow = took_s > self._timeout_s * self.target.settings.slow_share
        self.target.record(self._peer, self._permit, now, took_s, "slow" if slow else "ok")
        self._peer = None

    def failed(self, error: CallError, now: float, *, final: bool = False) -> None:
        """Note what went wrong. Returns if there may be another attempt, else raises the error, complete."""
        peer = self._peer
        assert peer is not None
        took_s = now - self._sent_at
        self.target.record(peer, self._permit, now, took_s, self._outcome(error, took_s), error.message)
        self._peer = None
        error.instance = peer.instance.instance
        if isinstance(error, Draining):
            peer.draining_until = now + DRAINED_S
        if final or not self._may_retry(error, now):
            raise self._named(error)
        if isinstance(error, NotHolder):
            # Who holds it now is known soon, and to look that up costs less than to be refused again.
            self._refused = peer.instance
            self._refused_until = now + min(MOST_REFUSED_S, REFUSED_S * 2 ** min(self._refusals, 8))
            self._refusals += 1
            self._polls = 0
            return
        elsewhere = len(self._tried) + 1 < len(self.target.peers)
        self._tried |= {peer.place}
        if not elsewhere:
            bound = min(MOST_PAUSE_S, FIRST_PAUSE_S * 2 ** (self._attempts - 1))
            self._pause_s = self._rng.uniform(0, bound)
        self.target.tally(self.method).retries += 1

    def abandon(self, now: float) -> None:
        """Nobody waits any more: the permit and the place in flight are given back."""
        if self._peer is not None:
            self.target.record(self._peer, self._permit, now, 0.0, "none")
            self._peer = None

    def finish(self, outcome: str, now: float) -> float:
        """Count the call; returns how long it took, in seconds."""
        took_s = now - self._began
        with self.target.lock:
            self.target.tally(self.method).add(outcome, took_s)
        return took_s

    def _may_retry(self, error: CallError, now: float) -> bool:
        if isinstance(error, CallRefused) or now >= self.until or not (error.safe or self._idempotent):
            return False
        if isinstance(error, NotHolder):
            return True
        most = self.target.settings.attempts
        # One that could not be reached has had no work from it: to ask the next adds nothing to the agent's load.
        if isinstance(error, ConnectionLost | Draining) and error.safe:
            return self._attempts < most + len(self.target.peers)
        return self._attempts < most and self.target.budget.take(now)

    def _outcome(self, error: CallError, took_s: float) -> Outcome:
        if isinstance(error, ConnectionLost):
            return "lost"
        if isinstance(error, CallTimeout):
            return "failed" if took_s >= min(FAIR_S, self._timeout_s / 2) else "none"
        if isinstance(error, CallFailed):
            return "failed"
        # It answered, and at once: full, stopping, not the holder, or right to refuse.
        return "none" if isinstance(error, Overloaded | Draining | NotHolder) else "ok"

    def _poll(self, now: float, waits_for: CallError) -> float:
        """Look again soon; `waits_for` is what there is to say if the time is over before that changes."""
        self._waits_for = waits_for
        self._polls += 1
        return min(POLL_S * self._polls, MOST_POLL_S, max(0.0, self.until - now))

    def _refused_by_circuits(self, now: float) -> float:
        """Waits for one to close, if that may be soon; who waits for what is gone for long only adds to the outage."""
        target = self.target
        peers = target.peers
        if not peers:  # another thread has seen a newer catalogue
            return self._poll(now, NoInstance(f"nobody serves {target.agent}"))
        reasons = ", ".join(f"{p.breaker.name}: {p.breaker.reason or 'ill for others'}" for p in peers)
        shut = NoInstance(f"every circuit to {target.agent} is open ({reasons})")
        trial_at = min(peer.breaker.opened + peer.breaker.open_for_s for peer in peers)
        alone = all(peer.instance.role == "holder" for peer in peers)
        wait_s = target.settings.vacant_s if alone else target.settings.absent_s
        young = now - max(peer.breaker.shut_since for peer in peers) < wait_s
        if young or (trial_at - now < SOON_S and trial_at < self.until and self._polls < MOST_POLLS):
            return self._poll(now, shut)
        raise self._named(shut)

    def _named(self, error: CallError) -> CallError:
        error.agent, error.method, error.trace = self.target.agent, self.method, self.trace
        error.attempts = self._attempts
        where = f" ({error.instance})" if error.instance else ""
        error.message = f"{error.agent}{where} {error.method}: {error.message}"
        error.args = (error.message,)
        return error
