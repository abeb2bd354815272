"""Addresses and their token files."""

from __future__ import annotations

import pytest

from outrider.errors import ConsulError
from outrider.registry.address import Address
from outrider.registry.client import connect


def test_the_token_is_what_the_file_holds(tmp_path) -> None:
    path = tmp_path / "token"
    path.write_text("abc-123\n")
    path.chmod(0o600)
    address = Address(port=8501, scheme="https").with_token_file(str(path))
    assert (address.token, address.port, address.scheme) == ("abc-123", 8501, "https")


def test_a_token_that_everyone_may_read_is_refused(tmp_path) -> None:
    path = tmp_path / "token"
    path.write_text("abc-123")
    path.chmod(0o644)
    with pytest.raises(ConsulError, match="may be read by everyone") as caught:
        Address().with_token_file(str(path))
    assert "chmod" in caught.value.hint
    assert "abc-123" not in str(caught.value)


@pytest.mark.parametrize("text", [None, "", "\n"])
def test_a_token_that_is_not_there_is_refused_rather_than_none_sent(tmp_path, text) -> None:
    path = tmp_path / "token"
    if text is not None:
        path.write_text(text)
        path.chmod(0o600)
    with pytest.raises(ConsulError, match=str(path)):
        Address().with_token_file(str(path))


def test_an_address_prints_without_its_token() -> None:
    address = Address(host="10.0.0.1", token="-".join(["abc", "123"]))
    assert f"{address}" == "http://10.0.0.1:8500"
    assert "abc-123" not in f"{address} {address!r} {connect(address)!r}"
