"""A function's arguments come by name and are checked against its annotations."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

from outrider.calls.methods import Method
from outrider.errors import CallRefused


class Question(msgspec.Struct):
    text: str
    limit: int = 5


def bound(function: Any, body: Any) -> Any:
    return Method(function, "ask", idempotent=False, quick=False).bind(msgspec.msgpack.encode(body), None)()


def test_arguments_come_by_name_with_their_defaults() -> None:
    def ask(text: str, limit: int = 5, tags: list[str] | None = None) -> Any:
        return text, limit, tags

    assert bound(ask, {"text": "x"}) == ("x", 5, None)
    assert bound(ask, {"text": "x", "limit": 1, "tags": ["a"]}) == ("x", 1, ["a"])


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "missing required field `text`"),
        ({"text": 1}, "Expected `str`, got `int` - at `$.text`"),
        ({"text": "x", "colour": 1}, "unknown field `colour`"),
        ([1], "Expected `object`, got `array`"),
        (None, "Expected `object`, got"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_place(body: Any, message: str) -> None:
    def ask(text: str) -> str:
        return text

    with pytest.raises(CallRefused) as refused:
        bound(ask, body)
    assert message in refused.value.message


def test_a_struct_is_the_whole_body() -> None:
    def ask(question: Question) -> Any:
        return question

    assert bound(ask, Question("x")) == Question("x", 5)
    with pytest.raises(CallRefused):
        bound(ask, {"txt": "x"})


def test_any_names_are_taken_where_the_function_takes_them() -> None:
    def ask(**document: Any) -> Any:
        return document

    assert bound(ask, {"a": 1, "b": [2]}) == {"a": 1, "b": [2]}


def test_nothing_is_an_argument_list_too() -> None:
    def ask() -> int:
        return 7

    assert bound(ask, {}) == 7


def test_a_default_is_not_shared_with_what_cannot_be_changed() -> None:
    def ask(vector: np.ndarray[Any, Any] | None = None) -> Any:
        return vector

    assert bound(ask, {}) is None


@pytest.mark.parametrize("kind", ["positional", "star"])
def test_a_function_that_cannot_be_called_by_name_is_refused_at_once(kind: str) -> None:
    def positional(a: int, /) -> int:
        return a

    def star(*a: int) -> int:
        return len(a)

    with pytest.raises(TypeError, match="arguments come by name"):
        Method({"positional": positional, "star": star}[kind], "ask", idempotent=False, quick=False)


def test_an_annotation_that_is_not_there_at_run_time_is_named() -> None:
    def ask(text: Nowhere) -> str:  # type: ignore[name-defined]  # noqa: F821
        return str(text)

    with pytest.raises(TypeError, match="Nowhere"):
        Method(ask, "ask", idempotent=False, quick=False)
