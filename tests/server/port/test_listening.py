"""A port is open where it was asked for, to both families where that is all of them."""

from __future__ import annotations

import socket

import pytest

from nomoat.aggregation.errors import NomoatError
from nomoat.server.port.listening import bind


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.skipif(not has_ipv6(), reason="no IPv6 on this machine")
@pytest.mark.parametrize(
    ("host", "reached"),
    [("::", {"::1", "127.0.0.1"}), ("::1", {"::1"}), ("0.0.0.0", {"127.0.0.1"})],
)
def test_an_address_is_listened_on_in_the_families_it_stands_for(
    host: str, reached: set[str]
) -> None:
    with bind(host, 0) as listener:
        listener.listen()
        found = set()
        for peer in ("::1", "127.0.0.1"):
            try:
                socket.create_connection((peer, listener.getsockname()[1]), timeout=5).close()
                found.add(peer)
            except OSError:
                continue
    assert found == reached


def test_an_address_of_another_machine_is_one_line_that_names_host() -> None:
    with pytest.raises(NomoatError, match=r"cannot listen on .*192\.0\.2\.1.*--host"):
        bind("192.0.2.1", 0)
