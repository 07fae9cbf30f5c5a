"""The port of a community that is being restored is open to its members, for one thing."""

from __future__ import annotations

import time
from pathlib import Path

from starlette.testclient import TestClient

from builders import community_info
from nomoat.aggregation.protocol import wire
from nomoat.aggregation.protocol.enrolment import PROOF_HEADER, prove
from nomoat.aggregation.protocol.history.key_changes import CommunityKeys
from nomoat.aggregation.protocol.history.recovery import WantedPieces
from nomoat.aggregation.protocol.signing import SigningKey
from nomoat.server.port.request_limits import RECOVERY_BYTES
from nomoat.server.recovery.port import make_app

KEY, ADA = SigningKey(b"\7" * 32), SigningKey(b"a" * 32)


class Asking:
    """A gathering that notes what comes, and wants nothing."""

    def __init__(self) -> None:
        self.came: list[tuple[object, ...]] = []

    def member(self, identity: bytes) -> str | None:
        return "ada" if identity == ADA.public else None

    def hear(self, body: bytes, identity: bytes, _now: float) -> WantedPieces:
        self.came.append((body, identity))
        return WantedPieces()

    def take_adapter(self, digest: bytes, after: int, part: bytes, who: bytes, _at: float) -> None:
        self.came.append((digest, after, part, who))


def client(asking: Asking) -> TestClient:
    app = make_app(asking, CommunityKeys(KEY.public), lambda now: community_info(now=now))  # type: ignore[arg-type]
    return TestClient(app, base_url="https://town")


def proof(target: str, who: SigningKey = ADA) -> dict[str, str]:
    return {PROOF_HEADER: prove(who, KEY.public, f"POST {target}", int(time.time()))}


def test_a_member_that_proves_who_it_is_is_heard_and_nobody_else() -> None:
    asking = Asking()
    port = client(asking)
    answer = port.post("/recovery", content=b"held", headers=proof("/recovery"))
    assert wire.decode(wire.Packet(answer.content), WantedPieces, "test").nothing
    assert asking.came == [(b"held", ADA.public)]
    assert port.post("/recovery", content=b"held").status_code == 400
    assert port.post("/recovery", content=b"held", headers=proof("/leave")).status_code == 400
    assert len(asking.came) == 1


def test_a_part_of_an_adapter_goes_where_it_belongs_and_only_a_member_may_send_one() -> None:
    asking, part = Asking(), bytes(1 << 20)
    target = f"/recovery/adapter/{'ab' * 32}?after=7"
    port = client(asking)
    assert port.post(target, content=part, headers=proof(target)).status_code == 204
    assert asking.came == [(b"\xab" * 32, 7, part, ADA.public)]
    stranger = proof(target, SigningKey(b"s" * 32))
    assert port.post(target, content=part, headers=stranger).status_code == 413
    large = bytes(RECOVERY_BYTES + 1)
    assert port.post(target, content=large, headers=proof(target)).status_code == 413


def test_everything_else_is_answered_with_503_which_volunteers_wait_out(tmp_path: Path) -> None:
    port = client(Asking())
    assert port.get("/community").status_code == 200
    for path in ("/lineage", "/roster", "/restored", "/versions"):
        answer = port.get(path)
        assert (answer.status_code, "backup" in answer.json()["error"]) == (503, True)
    assert port.post("/enroll", content=b"x").status_code == 503
    assert port.post("/v1/fleet/activate-node", content=b"x").status_code == 503
    assert port.get("/no-such-path").status_code == 404
