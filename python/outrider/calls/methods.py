"""A function that an agent serves: its arguments come by name, checked against its annotations."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable
from typing import Any

import msgspec

from outrider.calls import arrays
from outrider.calls.frames import decoder_of
from outrider.errors import CallRefused


class Method:
    """`name`, how to run it and whether it may be repeated. Raises TypeError for a function that cannot be served."""

    def __init__(self, function: Callable[..., Any], name: str, *, idempotent: bool, quick: bool) -> None:
        self.name = name
        self.function = function
        self.idempotent = idempotent
        self.is_coroutine = inspect.iscoroutinefunction(function)
        self.is_quick = quick and not self.is_coroutine
        kind, self._takes_struct = _arguments_of(function, name)
        self._decoder = decoder_of(kind)

    def bind(self, body: Any, buffers: memoryview | None) -> Callable[[], Any]:
        """The function with its arguments. Raises CallRefused for what does not fit, naming the argument."""
        try:
            arguments = arrays.decode(self._decoder, body, buffers)
        except (msgspec.MsgspecError, ValueError, TypeError) as error:
            raise CallRefused(f"wrong arguments: {error}") from error
        function = self.function
        if self._takes_struct:
            return lambda: function(arguments)
        named = arguments if isinstance(arguments, dict) else msgspec.structs.asdict(arguments)
        return lambda: function(**named)


def _arguments_of(function: Callable[..., Any], name: str) -> tuple[Any, bool]:
    """The type that a call's body must have, and whether it is the one argument itself."""
    parameters = list(inspect.signature(function).parameters.values())
    if any(p.kind in (p.POSITIONAL_ONLY, p.VAR_POSITIONAL) for p in parameters):
        raise TypeError(f"{name}: arguments come by name; positional-only ones and *args cannot be given")
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return dict[str, Any], False
    try:
        hints = typing.get_type_hints(function)
    except NameError as error:
        raise TypeError(f"{name}: {error}: what annotates its arguments must be there when the program runs") from error
    if len(parameters) == 1 and _is_struct(hints.get(parameters[0].name)):
        return hints[parameters[0].name], True
    fields = [_field(parameter, hints) for parameter in parameters]
    made = msgspec.defstruct(name, fields, kw_only=True, forbid_unknown_fields=True)
    return made, False


def _field(parameter: inspect.Parameter, hints: dict[str, Any]) -> Any:
    kind = hints.get(parameter.name, Any)
    if parameter.default is inspect.Parameter.empty:
        return parameter.name, kind
    default = parameter.default
    return parameter.name, kind, msgspec.field(default_factory=lambda: default)


def _is_struct(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)
