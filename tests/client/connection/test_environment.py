"""A volunteer's line goes to its coordinator alone, whatever the environment names."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.proto.message_pb2 import ObjectTree
from flwr.proto.node_pb2 import Node
from flwr.supercore.protobuf.client import ProtobufClient

from nomoat.aggregation.errors import RemoteProtocolError
from nomoat.client.connection.flower_client import (
    ConnectionSettings,
    FlowerClient,
    IncomingMessage,
)
from nomoat.client.connection.https import Endpoint

AWKWARD = (
    ("ALL_PROXY", "socks5h://127.0.0.1:1"),
    ("all_proxy", "socks4://127.0.0.1:1"),
    ("HTTPS_PROXY", "nonsense"),
    ("https_proxy", "http://[::1"),
    ("HTTP_PROXY", "ftp://user:pass word@:99999"),
    ("NO_PROXY", "[::1]"),
    ("no_proxy", "*.example,[fe80::1%eth0],::1/128"),
    ("SSL_CERT_FILE", "/nowhere.pem"),
    ("SSL_CERT_DIR", "/nowhere"),
)


@pytest.mark.parametrize(("name", "value"), AWKWARD)
def test_no_variable_of_the_environment_sends_the_line_elsewhere(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    endpoint = Endpoint("localhost", 1)
    node_key = ec.derive_private_key(7, ec.SECP384R1())
    with FlowerClient(ConnectionSettings(endpoint, node_key)) as line:
        client = line._fleet._client
        assert not client._mounts
        assert not client.trust_env
        assert not client.follow_redirects


def test_everything_flower_sets_up_itself_is_set_up_by_the_line() -> None:
    theirs = set(inspect.getsource(ProtobufClient.__init__).split("self._")[1:])
    names = {f"_{text.split(' ', 1)[0]}" for text in theirs}
    connection = ConnectionSettings(Endpoint("h", 1), ec.derive_private_key(7, ec.SECP384R1()))
    with FlowerClient(connection) as line:
        assert names == set(vars(line._fleet))


class FetchingLine(FlowerClient):
    """A line whose objects come from nowhere; fetched: how many have come."""

    fetched = 0

    def _object(self, *_asked: Any) -> bytes:
        self.fetched += 1
        return bytes(1000)


def test_a_message_larger_than_was_agreed_to_is_not_fetched_to_its_end() -> None:
    key = ec.derive_private_key(7, ec.SECP384R1())
    limited = ConnectionSettings(Endpoint("h", 1), key, most_bytes=lambda: 2500)
    tree = ObjectTree(object_id="t", children=[ObjectTree(object_id=str(n)) for n in range(50)])
    with FetchingLine(limited) as line:
        with pytest.raises(RemoteProtocolError, match="more than was agreed to"):
            line.fetch(Node(), IncomingMessage(None, tree, {}), 0.0)
        assert line.fetched == 3
