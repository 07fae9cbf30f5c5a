"""What answers where a coordinator should be is told apart from a coordinator's own refusals."""

from __future__ import annotations

import pytest

from nomoat.aggregation.errors import Refused, Unreachable
from nomoat.client.connection import https
from nomoat.client.connection.https import Endpoint, NotServed

HERE = Endpoint("town.example", 8443)


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "ALL_PROXY", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.mark.parametrize("status", [403, 404, 407, 502, 503])
@pytest.mark.parametrize("page", [b"<html>Bad Gateway</html>", b"", b"[]", b"{}"])
def test_an_answer_that_is_no_coordinators_says_that_something_stands_in_between(
    status: int, page: bytes
) -> None:
    with pytest.raises(Unreachable, match=f"answers {status}, but not as a coordinator"):
        https._body(status, page, HERE)


def test_a_coordinators_own_refusals_are_its_words() -> None:
    with pytest.raises(Refused, match="the coordinator says: banned"):
        https._body(403, b'{"refused": "banned"}', HERE)
    with pytest.raises(Unreachable, match="is busy: too many"):
        https._body(429, b'{"error": "too many"}', HERE)
    with pytest.raises(NotServed, match="Not Found"):
        https._body(404, b'{"detail": "Not Found"}', HERE)


def test_a_proxy_in_between_is_named_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://user:secret@proxy.example:3128")
    with pytest.raises(Unreachable, match=r"as the proxy proxy\.example:3128 may") as told:
        https._body(503, b"<html>", HERE)
    assert "secret" not in str(told.value)
