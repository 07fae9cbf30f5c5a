"""Fleet calls: whoever comes back has a rate of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import Request
from flwr.proto.fleet_pb2 import ActivateNodeRequest

from nomoat.server.fleet.fleet_grid import FleetGrid, open_run
from nomoat.server.fleet.flower_server import FLEET, CallRefused
from nomoat.server.fleet.link_state import FleetState
from nomoat.server.fleet.node_signature import PROVEN_KEY
from nomoat.server.port.fleet_calls import FleetCalls
from nomoat.server.port.rate_limit import Rate
from nomoat.server.port.request_limits import Caps


@pytest.fixture
def calls(tmp_path: Path) -> Iterator[FleetCalls]:
    state = FleetState(tmp_path, lambda key: key.decode())
    services: Any = SimpleNamespace(state=state, caps=Caps(node=Rate(0.0, 2.0)), max_objects=9)
    with open_run(state, FleetGrid(state, 60.0)):
        yield FleetCalls(services)
    state.close()


def come_back(calls: FleetCalls, key: bytes) -> int:
    scope = {"type": "http", "path": FLEET + "activate-node", "headers": [], PROVEN_KEY: key}
    call = ActivateNodeRequest(public_key=key, heartbeat_interval=30.0)
    return calls.at_once(Request(scope), call).status_code


def test_many_may_come_back_at_once_and_one_may_not_come_back_too_often(calls: FleetCalls) -> None:
    assert {come_back(calls, f"key{n}".encode()) for n in range(20)} == {200}
    assert come_back(calls, b"key7") == 200
    with pytest.raises(CallRefused, match="slow down"):
        come_back(calls, b"key7")
    assert come_back(calls, b"key8") == 200
