"""Documents: what is malformed is named, what is too much is split, who lost is told."""

from __future__ import annotations

import base64
import json

import pytest
from msgspec import Struct

from outrider.errors import ConsulConflict, ConsulDenied, ConsulError
from outrider.registry import kv
from outrider.registry.client import Reply, connect
from outrider.registry.kv import Change, decode_docs, get_doc, put_docs
from outrider.registry.layout import PLACEMENT, PUBLISHED

PREFIX = "outrider/test/"


class Doc(Struct):
    name: str
    count: int = 0


def reply(*pairs: tuple[str, str | None], status: int = 200) -> Reply:
    items = [
        {
            "Key": key,
            "ModifyIndex": 10 + n,
            "CreateIndex": 1,
            "Flags": 0,
            "LockIndex": 0,
            "Value": value and base64.b64encode(value.encode()).decode(),
        }
        for n, (key, value) in enumerate(pairs)
    ]
    return Reply(index=42, body=json.dumps(items).encode(), known_leader=True, last_contact_ms=0, status=status)


def test_documents_are_found_by_their_key_after_the_prefix() -> None:
    docs = decode_docs(
        reply((PREFIX + "a", '{"name": "A"}'), (PREFIX + "b/c", '{"name": "B", "count": 2}')), PREFIX, Doc
    )
    assert docs.index == 42
    assert docs.docs == {"a": (Doc("A"), 10), "b/c": (Doc("B", 2), 11)}
    assert docs.problems == []


@pytest.mark.parametrize("text", ["", "{", "[]", '{"count": 1}', '{"name": 5}', "\x00", None])
def test_one_malformed_document_does_not_hide_the_others(text) -> None:
    docs = decode_docs(reply((PREFIX + "bad", text), (PREFIX + "good", '{"name": "A"}')), PREFIX, Doc)
    assert docs.docs == {"good": (Doc("A"), 11)}
    assert len(docs.problems) == 1
    assert docs.problems[0].startswith(PREFIX + "bad: ")


def test_the_number_of_a_publication_is_no_placement() -> None:
    docs = decode_docs(reply((PUBLISHED, '{"number": 5}'), (PLACEMENT + "a", '{"name": "A"}')), PLACEMENT, Doc)
    assert (docs.docs, docs.problems) == ({"a": (Doc("A"), 11)}, [])


def test_nothing_there_is_no_documents() -> None:
    assert decode_docs(Reply(7, b"", True, 0, 404), PREFIX, Doc).docs == {}


@pytest.mark.parametrize("body", [b"<html>", b"{}", b'[{"Key": 5}]'])
def test_an_answer_that_is_not_consuls_is_an_error_and_not_an_empty_fleet(body) -> None:
    with pytest.raises(ConsulError, match="not readable"):
        decode_docs(Reply(7, body, True, 0, 200), PREFIX, Doc)


def test_a_malformed_document_asked_for_by_name_is_an_error(fake_consul, answers) -> None:
    client = connect(fake_consul(answers(body=reply(("k", "{")).body)).address)
    with pytest.raises(ConsulError, match="the document k: "):
        get_doc(client, "k", Doc)


def test_changes_are_split_by_what_a_transaction_takes(fake_consul, answers) -> None:
    fake = fake_consul(answers(body=b'{"Results": [], "Errors": null}'))
    put_docs(connect(fake.address), [Change(f"k{n:03}", Doc("x"), n) for n in range(150)])
    sent = [[operation["KV"]["Key"] for operation in json.loads(asked.body)] for asked in fake.asked]
    assert [len(keys) for keys in sent] == [64, 64, 22]
    assert [key for keys in sent for key in keys] == [f"k{n:03}" for n in range(150)], "in the order given"


def test_changes_are_split_by_their_size_too(fake_consul, answers) -> None:
    fake = fake_consul(answers(body=b"{}"))
    put_docs(connect(fake.address), [Change(f"k{n}", Doc("x" * 100_000), 0) for n in range(10)])
    assert sum(len(json.loads(asked.body)) for asked in fake.asked) == 10
    assert all(len(asked.body) < 512 * 1024 for asked in fake.asked)
    assert len(fake.asked) == 4, "three of 133 KB each fit"


def test_one_document_that_is_too_big_is_sent_so_that_consul_says_so(fake_consul, answers) -> None:
    fake = fake_consul(answers(status=413, body=b"Request body too large"))
    with pytest.raises(ConsulError, match="too large") as caught:
        put_docs(connect(fake.address), [Change("k", Doc("x" * 600_000), 0)])
    assert caught.value.status == 413


def test_nothing_to_change_asks_nothing(fake_consul, answers) -> None:
    fake = fake_consul(answers())
    assert put_docs(connect(fake.address), []) == {}
    assert fake.asked == []


def test_a_conflict_in_the_second_transaction_says_that_the_first_is_written(fake_consul, answers, monkeypatch) -> None:
    monkeypatch.setattr(kv, "TXN_OPS", 2)
    errors = {"Errors": [{"OpIndex": 1, "What": "index is stale"}, {"OpIndex": 0, "What": "index is stale"}]}

    def answer(asked):
        if "k2" in asked.body.decode():
            return answers(status=409, body=json.dumps(errors).encode())(asked)
        return answers(body=b"{}")(asked)

    with pytest.raises(ConsulConflict, match="meanwhile: k2, k3") as caught:
        put_docs(connect(fake_consul(answer).address), [Change(f"k{n}", Doc("x"), 0) for n in range(6)])
    assert "2 changes before it are written" in caught.value.hint


def test_a_conflict_in_the_only_transaction_says_that_nothing_is_written(fake_consul, answers) -> None:
    fake = fake_consul(answers(status=409, body=b'{"Errors": [{"OpIndex": 0, "What": "stale"}]}'))
    with pytest.raises(ConsulConflict, match="meanwhile: k") as caught:
        put_docs(connect(fake.address), [Change("k", None, 3)])
    assert "nothing was written" in caught.value.hint


def test_a_token_without_the_right_is_denied(fake_consul, answers) -> None:
    fake = fake_consul(answers(status=403, body=b"Permission denied"))
    with pytest.raises(ConsulDenied):
        put_docs(connect(fake.address), [Change("k", Doc("x"), 0)])
