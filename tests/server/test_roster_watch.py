"""With records on a server, calls are judged without asking it, whether it is there or not."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from nomoat.aggregation.protocol import wire
from nomoat.aggregation.protocol.enrolment import Enrol, Standing, bind
from nomoat.aggregation.protocol.invitation import Claims
from nomoat.aggregation.protocol.roster import Event, Member
from nomoat.aggregation.protocol.signing import SigningKey
from nomoat.server.community.database import Database
from nomoat.server.community.members import Registrar
from nomoat.server.community.membership_rules import Admission
from nomoat.server.port.routes import answered
from nomoat.server.port.services import Directory, to_pem
from nomoat.server.roster_watch import watched
from postgres import Server

KEY, NOW = SigningKey(b"\7" * 32), 1_800_000_000
CLAIMS = Claims("localhost:1", bytes(32), KEY.public, b"i" * 16, 9, NOW + 100)
NODE_KEYS = [ec.derive_private_key(3000 + which, ec.SECP384R1()) for which in range(3)]
PEOPLE = [
    bind(f"vol{which}", SigningKey(bytes([which + 1]) * 32), key, KEY.public)
    for which, key in enumerate(NODE_KEYS)
]


def joined(registrar: Registrar, *which: int) -> None:
    token = registrar.invite(CLAIMS).token()
    for one in which:
        registrar.enrol(wire.encode(Enrol(token, PEOPLE[one])).head, NOW)


def test_calls_are_judged_by_the_roster_of_before_while_its_server_is_away(
    postgres: Server,
) -> None:
    url = postgres.schema()
    with contextlib.ExitStack() as held:
        ours, theirs = (
            Registrar(held.enter_context(contextlib.closing(Database(url))), KEY, Admission.OPEN)
            for _ in range(2)
        )
        held.enter_context(ours.database.claimed("is up elsewhere"))
        held.enter_context(watched(ours))
        speaks, keys = Directory(ours), [to_pem(one.node_key) for one in PEOPLE]
        joined(ours, 0, 1)
        assert [speaks(key) for key in keys] == ["vol0", "vol1", None]
        theirs.order("vol0", Event.BAN, "", NOW)
        while speaks(keys[0]) is not None:
            time.sleep(0.01)
        postgres.kill()
        held.callback(postgres.start)
        assert [speaks(key) for key in keys] == [None, "vol1", None]
        assert ours.known().members["vol0"].standing is Standing.BANNED
        response = asyncio.run(answered(lambda: ours.page(0)))
        assert (response.status_code, response.headers["retry-after"]) == (503, "5")
        assert b"cannot be reached now; try again" in response.body


def test_who_may_speak_is_the_same_however_the_roster_came_to_be(tmp_path: Path) -> None:
    with contextlib.closing(Database(tmp_path / "community.db")) as database:
        registrar = Registrar(database, KEY, Admission.OPEN)
        step_by_step = Directory(registrar)
        orders = (
            lambda: joined(registrar, 0, 1),
            lambda: registrar.order("vol0", Event.HOLD, "", NOW),
            lambda: joined(registrar, 2),
            lambda: registrar.order("vol0", Event.RELEASE, "", NOW),
            lambda: registrar.order("vol1", Event.LEAVE, "", NOW),
            lambda: registrar.order("vol2", Event.BAN, "", NOW),
        )
        for order in orders:
            order()
            at_once = Directory(registrar)
            step_by_step.now()
            at_once.now()
            before = step_by_step.latest
            assert dict(before) == dict(at_once.latest)
            step_by_step.now()
            assert step_by_step.latest is before


class Slowly(dict[str, Member]):
    """Members that are looked through so slowly that `meanwhile` happens first."""

    def __init__(self, members: Mapping[str, Member], meanwhile: Callable[[], object]) -> None:
        super().__init__(members)
        self._meanwhile = meanwhile

    def items(self) -> Any:
        self._meanwhile()
        return super().items()


def test_a_thread_that_is_slower_takes_nobody_back_who_came_since(tmp_path: Path) -> None:
    with contextlib.closing(Database(tmp_path / "community.db")) as database:
        registrar = Registrar(database, KEY, Admission.OPEN)
        joined(registrar, 0)
        before = registrar.roster()
        joined(registrar, 1)
        rosters = [registrar.roster()]
        directory = Directory(SimpleNamespace(known=lambda: rosters[-1]))  # type: ignore[arg-type]

        def faster() -> None:
            rosters.pop()
            directory.now()

        rosters.append(replace(before, members=Slowly(before.members, faster)))
        directory.now()
        assert {who.name for who in directory.latest.values()} == {"vol0", "vol1"}
