"""A federation of real processes survives what happens to machines: kills, freezes, tampering."""

from __future__ import annotations

import base64
import json
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from commands_here import CommandsHere
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_ssh_private_key

from builders import topic_rows
from nomoat.aggregation.secagg.masks.keys import SessionSecrets
from nomoat.server.rounds.records import RoundRecord
from nomoat.simulations.loopback.processes import LoopbackFederation

HONEST = ("ada", "ben", "cleo")
NAMES = (*HONEST, "mallory")
OPTIONS = (
    "--min-volunteers", "4", "--min-reports", "2", "--allow-weak", "--max-rounds", "3",
    "--local-steps", "4", "--batch-size", "2", "--seq-len", "32",
)  # fmt: skip
# Long enough for a slow core that does other things, too; who is frozen is waited for so long.
IMPATIENT = {"NOMOAT_ROUNDS__TRAIN_DEADLINE": "25", "NOMOAT_ROUNDS__ROUND_EVERY": "5"}
STEP_S = 400.0


def machine(federation: LoopbackFederation, fault: str = "honest") -> LoopbackFederation:
    """The same federation, whose next process runs on a machine with this fault (faulty.py)."""
    program = (sys.executable, str(Path(__file__).with_name("faulty.py")), fault)
    return replace(federation, program=program)


@pytest.fixture
def told(tmp_path: Path) -> Path:
    """What volunteers confess to the test alone: entropy of their sessions, all messages."""
    folder = tmp_path / "told"
    folder.mkdir()
    return folder


@pytest.fixture
def federation(tmp_path: Path, told: Path, tiny_model: Path) -> Iterator[LoopbackFederation]:
    environment = {"OMP_NUM_THREADS": "1", "TOLD": str(told)}
    root = tmp_path / "federation"
    root.mkdir()
    with CommandsHere(root, environment=environment) as made:
        made.init("faults", tiny_model, OPTIONS)
        made.up()
        made.wait("the port", lambda: bool(made.hosted()), STEP_S)
        link = made.invite(len(NAMES))
        faults = {"ada": "stuck", "mallory": "tampers"}
        for name in NAMES:
            data = topic_rows(root / f"{name}.jsonl", name)
            machine(made, faults.get(name, "honest")).join(name, link, data, tiny_model)
        yield made


@pytest.mark.timeout(2400)
def test_rounds_go_on_whatever_happens_to_the_machines(
    federation: LoopbackFederation, told: Path
) -> None:
    """One story, because starting processes is what costs: each part says what it promises."""

    def trains(name: str, number: int) -> bool:
        state = federation.state(name)
        here = federation.hosted().get("round") == number
        return here and (state.get("doing"), state.get("why")) == ("working", "train.local")

    def ended(number: int) -> bool:
        return any(record.round == number for record in federation.records())

    def record(number: int) -> RoundRecord:
        return next(record for record in federation.records() if record.round == number)

    # A volunteer is killed in the middle of its training and comes back: it is not missed. One that
    # alters its update is refused by its name, in the record and in the log.
    federation.wait("ada training", lambda: trains("ada", 1), STEP_S)
    federation.kill("ada")
    machine(federation).rerun("ada")
    federation.wait("round 1", lambda: ended(1), STEP_S)
    first = record(1)
    assert first.committed, first.reason
    assert set(first.contributors) == set(HONEST), (first.dropped, first.refused)
    assert "mallory" in first.refused
    assert "refused: mallory" in (federation.root / "up.err").read_text()

    # The coordinator is killed after the reports are in and before the round is committed; the
    # volunteers find it again by themselves. If their shares were revealed by then, they let the
    # round be abandoned: an update enters one sum only (protocol §10.5).
    federation.wait(
        "round 2 to be judged",
        lambda: (
            federation.hosted().get("round") == 2
            and federation.hosted().get("phase") in ("aggregating", "evaluating")
        ),
        STEP_S,
    )
    federation.kill("up")
    before = versions(federation)
    federation.environment = {**federation.environment, **IMPATIENT}
    federation.up("--until-done")
    federation.wait("round 3 to be due", lambda: federation.hosted().get("round") == 3, STEP_S)

    # A volunteer freezes: its round goes on without it after the deadline.
    os.kill(federation.processes["ben"].pid, signal.SIGSTOP)
    try:
        federation.wait("round 3", lambda: ended(3), STEP_S)
    finally:
        os.kill(federation.processes["ben"].pid, signal.SIGCONT)
    third = record(3)
    assert third.committed, third.reason
    assert set(third.contributors) == {"ada", "cleo"}
    assert "late" in third.dropped["ben"]

    after = versions(federation)
    assert after[: len(before)] == before  # nothing of the history changed
    assert [version["round"] for version in after] in ([0, 1, 2, 3], [0, 1, 3])
    assert set(after[-2]["contributors"]) == set(HONEST)
    where = ("--json", "--dir", str(federation.folder))
    assert json.loads(federation.call("adapter", "verify", *where)) == {
        "versions": len(after),
        "ok": True,
    }

    nothing_secret_left(federation, told)


def nothing_secret_left(federation: LoopbackFederation, told: Path) -> None:
    """No secret of a session was in a message or is in a file, whatever was killed in between; a
    private key is in its own file alone.
    """
    secrets = session_secrets(told)
    assert len(secrets) >= 6 * 3 * len(HONEST)
    assert all(holds(path.read_bytes(), secrets) for path in told.glob("*.entropy"))
    messages = [path.read_bytes() for path in told.glob("*.message")]
    assert messages
    assert not any(holds(message, secrets) for message in messages)
    files = {path: path.read_bytes() for path in federation.root.rglob("*") if path.is_file()}
    assert federation.folder / "community.db" in files
    assert [path for path, data in files.items() if holds(data, secrets)] == []
    keys = {path: private_parts(data) for path, data in files.items() if path.suffix == ".key"}
    assert len(keys) == 3 + 2 * len(NAMES)
    for own, parts in keys.items():
        assert own.stat().st_mode & 0o077 == 0
        assert [path for path, data in files.items() if holds(data, parts)] == [own]
        assert not any(holds(message, parts) for message in messages)


def session_secrets(told: Path) -> list[bytes]:
    """Entropy, private keys and seeds of every session a volunteer was in."""
    names = ("box_private", "mask_private", "self_seed", "coefficient_key", "rounding_key")
    found = []
    for path in told.glob("*.entropy"):
        entropy = path.read_bytes()
        held = SessionSecrets(entropy)
        found += [entropy, *(getattr(held, name) for name in names)]
    return found


def private_parts(key: bytes) -> list[bytes]:
    """What of a key file nobody else may have: a seed, or a scalar and its line of PEM."""
    lines = key.splitlines()
    if key.startswith(b"-----BEGIN OPENSSH"):
        number = load_ssh_private_key(key, None).private_numbers().private_value
        return [number.to_bytes(48, "big"), lines[-3]]
    if key.startswith(b"-----BEGIN"):
        number = load_pem_private_key(key, None).private_numbers().private_value
        return [number.to_bytes(32, "big"), lines[1]]
    return [bytes.fromhex(key.decode())]


def holds(data: bytes, secrets: list[bytes]) -> bool:
    """Whether data holds one of the secrets, as bytes, in hex or in base64."""
    return any(
        form in data
        for secret in secrets
        for form in (secret, secret.hex().encode(), base64.b64encode(secret)[:40])
    )


def versions(federation: LoopbackFederation) -> list[dict[str, Any]]:
    listed = federation.call("adapter", "list", "--json", "--dir", str(federation.folder))
    found: list[dict[str, Any]] = json.loads(listed)
    return found
