"""A wish that cannot be is one line, before anything is asked of a coordinator."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nomoat.aggregation.errors import UsageError
from nomoat.aggregation.protocol.invitation import Claims, issue
from nomoat.aggregation.protocol.signing import SigningKey
from nomoat.client.home import Home
from nomoat.client.volunteer.joining import Wish, consider

KEY = SigningKey(b"\7" * 32)
LINK = issue(Claims("localhost:1", b"\1" * 32, KEY.public, b"\2" * 16, 1, 2**31), KEY)
WISH = Wish(Path("rows.jsonl"), "base", "ada", "auto", 0.1, None, 4, None, 0)


@pytest.mark.parametrize(
    ("wish", "line"),
    [
        ({"heldout": 0.9}, "--heldout: input should be less than or equal to 0.5"),
        ({"heldout": -0.1}, "--heldout: "),
        ({"heldout": float("nan")}, "--heldout: "),
        ({"name": "a" * 60}, "--as: string should have at most 40 characters"),
        ({"name": ""}, "--as: "),
        ({"base": "b" * 5000}, "--base: "),
        ({"known_peers": 10**7}, "--known-peers: "),
        ({"device": "tpu"}, "--device: .*'tpu' is no device; auto, cpu, cuda, mps and xpu are"),
        ({"device": "cuda:x"}, "--device: "),
        ({"device": "d" * 60}, "--device: "),
    ],
    ids=str,
)
def test_a_wish_that_cannot_be_is_refused_by_its_flag(
    tmp_path: Path, wish: dict[str, Any], line: str
) -> None:
    with pytest.raises(UsageError, match=f"^{line}") as refused:
        consider(Home(tmp_path), LINK, replace(WISH, **wish), lambda _: "base")
    assert "\n" not in str(refused.value)
    assert not list(tmp_path.iterdir())
