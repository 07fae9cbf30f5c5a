"""Rounds of honest volunteers while strangers attack the coordinator's port.

python benchmarks/hostile.py [--json] [--rounds N]

A community of three volunteers as processes, over TLS on loopback, trains without pause; one attack
after the other runs beside it, from other threads here, each over `rounds` rounds, with as many
quiet rounds before and after it.

worst_slowdown   largest ratio of the median round under an attack to that of the quiet rounds
worst_growth_mb  largest growth of the coordinator's memory under an attack beyond its quiet peak
fivehundreds     answers of 500 and more, all attacks together
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import socket
import ssl
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from nomoat.simulations.loopback.cli import share_out
from nomoat.simulations.loopback.processes import LoopbackFederation
from nomoat.simulations.pocket import MODEL_DIR

OPTIONS = (
    "--min-volunteers", "3", "--allow-weak", "--max-rounds", "100000",
    "--local-steps", "2", "--batch-size", "2", "--seq-len", "64",
)  # fmt: skip
NAMES = ["ada", "bob", "cy"]
WAIT_S = 300.0
HEAD = b"POST /v1/fleet/%s HTTP/1.1\r\nhost: x\r\ncontent-type: application/protobuf\r\n"


@dataclass
class Attack:
    """Connections to one port, opened by attacks and closed with the block."""

    port: int
    over: threading.Event = field(default_factory=threading.Event)
    sockets: list[socket.socket] = field(default_factory=list)
    fivehundreds: int = 0

    def connect(self) -> ssl.SSLSocket:
        """A TLS connection to the port, kept until the attack is over."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        raw = socket.create_connection(("127.0.0.1", self.port), 5)
        made = context.wrap_socket(raw)
        self.sockets.append(made)
        return made

    def say(self, data: bytes, *, listen: bool = True) -> None:
        """Send something on a connection of its own; note an answer of 500."""
        with contextlib.suppress(OSError):
            line = self.connect()
            line.settimeout(5)
            line.sendall(data)
            if listen:
                self.fivehundreds += line.recv(16)[9:10] == b"5"
                line.close()
                self.sockets.remove(line)

    def close(self) -> None:
        """Let go of everything."""
        self.over.set()
        for one in self.sockets:
            with contextlib.suppress(OSError):
                one.close()


def call(name: bytes, length: int, body: bytes = b"") -> bytes:
    """A fleet call's head, with a length that need not be its body's."""
    return HEAD % name + b"content-length: %d\r\n\r\n" % length + body


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


def bombs(attack: Attack) -> None:
    """Eight megabytes of empty protobuf fields, as a stranger, five a second."""
    body = b"\x0a\x00" * (4 << 20)
    while not attack.over.wait(0.2):
        attack.say(call(b"push-messages", len(body), body))
        attack.say(call(b"push-object", len(body), body))


def bad_authentications(attack: Attack) -> None:
    """Calls with nobody's key, two a second, from the members' own address."""
    keys = b"flwr-public-key: eA==\r\nflwr-signature: eA==\r\nflwr-timestamp: 1\r\n"
    request = call(b"pull-messages", 0).replace(b"\r\n\r\n", b"\r\n" + keys + b"\r\n")
    while not attack.over.wait(0.5):
        attack.say(request)


ATTACKS: tuple[Callable[[Attack], None], ...] = (
    unsent_pulls,
    endless_headers,
    unsent_bodies,
    idle_connections,
    bombs,
    bad_authentications,
)


@contextlib.contextmanager
def community(root: Path) -> Iterator[LoopbackFederation]:
    """Three volunteers and their coordinator, at work."""
    with LoopbackFederation(root) as made:
        made.init("hostile", MODEL_DIR, OPTIONS)
        files = share_out(root, NAMES)
        made.up()
        made.wait("the port", lambda: bool(made.hosted()), WAIT_S)
        link = made.invite(len(NAMES))
        for name in NAMES:
            made.join(name, link, files[name], MODEL_DIR)
        made.wait("the first rounds", lambda: len(made.records()) > 3, WAIT_S)
        yield made


def window(
    made: LoopbackFederation, attack: Callable[[Attack], None], rounds: int
) -> tuple[float, float, int]:
    """(median seconds of a round, peak MB of the coordinator, answers of 500) beside an attack."""
    under = Attack(made.port)
    thread = threading.Thread(target=attack, args=(under,), daemon=True)
    process = psutil.Process(made.processes["up"].pid)
    begun, ends, peak = len(made.records()), [time.monotonic()], 0.0
    thread.start()
    try:
        for _ in made.watch("rounds", lambda: len(ends) > rounds, WAIT_S):
            peak = max(peak, process.memory_info().rss / 2**20)
            ends.extend([time.monotonic()] * (len(made.records()) - begun - len(ends) + 1))
    finally:
        under.close()
        thread.join(10)
    lasted = [after - before for before, after in itertools.pairwise(ends)]
    return statistics.median(lasted), peak, under.fivehundreds


def measured(rounds: int) -> dict[str, Any]:
    """Every attack, beside quiet rounds before and after it."""
    found: dict[str, Any] = {"attacks": {}}
    with tempfile.TemporaryDirectory() as folder, community(Path(folder)) as made:
        before = window(made, nothing, rounds)
        for attack in ATTACKS:
            under = window(made, attack, rounds)
            after = window(made, nothing, rounds)
            quiet = (before[0] + after[0]) / 2
            found["attacks"][attack.__name__] = {
                "round_s": under[0],
                "quiet_s": quiet,
                "slowdown": under[0] / quiet,
                "growth_mb": max(0.0, under[1] - max(before[1], after[1])),
                "fivehundreds": under[2],
            }
            before = after
    each = found["attacks"].values()
    found["worst_slowdown"] = max(one["slowdown"] for one in each)
    found["worst_growth_mb"] = max(one["growth_mb"] for one in each)
    found["fivehundreds"] = sum(one["fivehundreds"] for one in each)
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=8)
    options = parser.parse_args()
    found = measured(options.rounds)
    if options.json:
        sys.stdout.write(json.dumps(found) + "\n")
        return
    for name, one in found["attacks"].items():
        print(
            f"{name:20} {one['round_s']:6.2f} s a round, quiet {one['quiet_s']:6.2f} s "
            f"(× {one['slowdown']:.2f}), + {one['growth_mb']:.0f} MB, {one['fivehundreds']} × 5xx"
        )
    for name in ("worst_slowdown", "worst_growth_mb", "fivehundreds"):
        print(f"{name:20} {found[name]:.2f}")


if __name__ == "__main__":
    main()
