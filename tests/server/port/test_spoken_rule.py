"""A volunteer with no version of the protocol in common is told which release to install."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from nomoat.aggregation.protocol.community.spoken import OURS, SpokenVersions
from nomoat.flower.headers import SPEAKS
from nomoat.server.port.spoken_rule import SpokenRule, refusal


def answered(ours: SpokenVersions, header: str | None, path: str = "/roster") -> tuple[int, str]:
    """The status of an answer, and the line of a refusal."""
    sent: list[dict[str, Any]] = []

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})

    async def send(event: Any) -> None:
        sent.append(event)

    async def receive() -> Any:
        raise AssertionError

    headers = [] if header is None else [(SPEAKS.encode(), header.encode())]
    scope = {"type": "http", "method": "GET", "path": path, "headers": headers}
    rule = SpokenRule(app, lambda _scope, _spoken: None, ours)
    asyncio.run(rule(scope, receive, send))
    said = json.loads(sent[1]["body"])
    return sent[0]["status"], said.get("refused", "")


@pytest.mark.parametrize("header", [None, "1", "1-2", "1-999", "not a version"])
def test_releases_of_before_and_to_come_are_served_as_long_as_they_speak_ours(
    header: str | None,
) -> None:
    assert answered(SpokenVersions(1, 1), header) == (200, "")


def test_who_is_too_old_is_told_on_every_path_what_to_install() -> None:
    assert refusal(SpokenVersions(1, 1), SpokenVersions(2, 3), "/community") is not None
    status, line = answered(SpokenVersions(2, 3), None)
    assert status == 403
    assert line.startswith("this community speaks protocol 2 to 3, this nomoat 1: install nomoat")


def test_who_is_too_new_reads_the_description_and_is_told_whose_turn_it_is(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert answered(OURS, "2-3", "/community") == (200, "")
    status, line = answered(OURS, "2-3")
    assert (status, line) == (
        403,
        "this community speaks protocol 1, this nomoat 2 to 3: its coordinator must install a "
        "newer nomoat",
    )
    assert "speaks protocol 2 to 3 was told" in caplog.text
