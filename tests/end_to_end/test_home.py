"""A volunteer's machine stays its owner's: it is given back at once, and what left is known."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from commands_here import CommandsHere

from builders import topic_rows
from nomoat.simulations.loopback.processes import LOOK_S, LoopbackFederation
from nomoat.simulations.pocket import MODEL_DIR

OPTIONS = (
    "--min-volunteers", "2", "--min-reports", "2", "--allow-weak", "--max-rounds", "1",
    "--local-steps", "250", "--batch-size", "2", "--seq-len", "32",
)  # fmt: skip
STEP_S = 300.0
WORKER_BYTES = 100 << 20  # a process with torch in it has more


@pytest.fixture
def federation(tmp_path: Path) -> Iterator[LoopbackFederation]:
    with CommandsHere(tmp_path, environment={"OMP_NUM_THREADS": "1"}) as made:
        made.init("home", MODEL_DIR, OPTIONS)
        made.up()
        made.wait("the port", lambda: bool(made.hosted()), STEP_S)
        link = made.invite(2)
        for name in ("ada", "ben"):
            made.join(name, link, rows(tmp_path / f"{name}.jsonl", name), MODEL_DIR)
        yield made


def rows(path: Path, topic: str) -> Path:
    """Rows about `topic`, and one with a card number in it."""
    topic_rows(path, topic)
    with path.open("a") as file:
        file.write(json.dumps({"text": "my card is 4111 1111 1111 1111"}) + "\n")
    return path


def trains(federation: LoopbackFederation, name: str) -> bool:
    state = federation.state(name)
    return (state.get("doing"), state.get("why")) == ("working", "train.local")


def workers(federation: LoopbackFederation, name: str) -> list[psutil.Process]:
    client = psutil.Process(federation.processes[name].pid)
    children = client.children(recursive=True)
    return [child for child in children if child.memory_info().rss > WORKER_BYTES]


def checkpoints(federation: LoopbackFederation, name: str) -> list[Path]:
    return list(federation.home(name).glob("communities/*/held/training.safetensors"))


@pytest.mark.timeout(1800)
def test_a_round_survives_a_pause_and_a_kill_and_everything_that_left_is_receipted(
    federation: LoopbackFederation,
) -> None:
    """One story, because starting processes is what costs."""
    federation.wait("ada training", lambda: trains(federation, "ada"), STEP_S)
    federation.wait("ada's worker", lambda: bool(workers(federation, "ada")), STEP_S)
    assert "left out of training" in (federation.root / "ada.err").read_text()

    # Paused, the worker is gone, and status says why.
    federation.call("pause", home="ada")
    federation.wait("memory", lambda: not workers(federation, "ada"), STEP_S)
    assert federation.call("status", home="ada").startswith("paused: until nomoat resume, since")
    federation.call("resume", home="ada")

    # Killed in the middle of a step, its worker lays the training down; it goes on where it was.
    federation.wait("ada training", lambda: trains(federation, "ada"), STEP_S)
    federation.wait("ada's worker", lambda: bool(workers(federation, "ada")), STEP_S)
    (worker,) = workers(federation, "ada")
    while worker.cpu_times().user < 6.0:  # its imports take some; now it trains
        if not trains(federation, "ada"):
            break
        time.sleep(LOOK_S)
    federation.kill("ada")
    federation.wait("ada's worker to end", lambda: not worker.is_running(), STEP_S)
    federation.rerun("ada")
    federation.wait("round 1", lambda: len(federation.records()) >= 2, 2 * STEP_S)
    record = federation.records()[1]
    assert record.committed
    assert set(record.contributors) == {"ada", "ben"}, (record.dropped, record.refused)

    # What left is in the log, the log is whole, and the community's receipt is here.
    def receipted() -> bool:
        shown = federation.call("credit", "--json", home="ada")
        return bool(json.loads(shown))

    federation.wait("ada's receipt", receipted, STEP_S)
    verified = json.loads(federation.call("sent", "--verify", "--json", home="ada"))
    assert (verified["ok"], verified["receipted"], verified["unlogged"]) == (True, 1, [])
    sent = json.loads(federation.call("sent", "--json", "--last", "99", home="ada"))
    kinds = [entry["message"] for entry in sent]
    assert kinds[0] == "enrol"
    assert [entry["session_size"] for entry in sent if entry["message"] == "sa.masked"] == [2]
    (credit,) = json.loads(federation.call("credit", "--json", home="ada"))
    assert (credit["rounds"], credit["name"]) == (1, "home")
    assert not checkpoints(federation, "ada")  # the update it led to is on disk

    # A member begins another community with the newest version, fetched by this one's link.
    link, poets = federation.invite(1), federation.root / "poets"
    federation.call("init", str(poets), "--name", "Poets", "--from", link, *OPTIONS, home="ada")
    assert "signed by home" in federation.call("adapter", "verify", "--dir", str(poets))

    federation.call("finish", home="ada")
    federation.wait("ada's end", lambda: federation.processes["ada"].poll() is not None, STEP_S)
    assert federation.processes["ada"].returncode == 0
    assert "finished, as you asked" in federation.call("status", home="ada")
