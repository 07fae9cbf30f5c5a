"""Two communities on one base, each with personal parts: one process, one worker, one base."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from commands_here import CommandsHere

from nomoat.simulations.loopback.processes import LoopbackFederation
from nomoat.simulations.pocket import MODEL_DIR

ROUNDS = 2
OPTIONS = (
    "--min-volunteers", "2", "--min-reports", "2", "--allow-weak", "--max-rounds", str(ROUNDS),
    "--local-steps", "3", "--batch-size", "2", "--seq-len", "32", "--rank", "8",
    "--tolerance", "1",  # what is trained on does not matter here
)  # fmt: skip
NAMES = ("farm", "town")
PERSONAL = {"farm": "adapter", "town": "local-B"}
VOLUNTEERS = ("ada", "ben")
RANKS = {"farm": {"ada": 8, "ben": 4}, "town": {"ada": 8, "ben": 8}}
STEP_S = 300.0
WORKER_BYTES = 100 << 20  # a process with torch in it has more


@pytest.fixture
def communities(tmp_path: Path) -> Iterator[tuple[LoopbackFederation, LoopbackFederation]]:
    made = tuple(
        CommandsHere(tmp_path / name, environment={"OMP_NUM_THREADS": "1"}) for name in NAMES
    )
    with made[0] as farm, made[1] as town:
        for name, one in zip(NAMES, made, strict=True):
            one.root.mkdir()
            one.init(name, MODEL_DIR, (*OPTIONS, "--personal", PERSONAL[name]))
            one.up()
        yield farm, town


def workers(federation: LoopbackFederation, name: str) -> list[int]:
    children = psutil.Process(federation.processes[name].pid).children(recursive=True)
    return [child.pid for child in children if child.memory_info().rss > WORKER_BYTES]


@pytest.mark.timeout(900)
def test_volunteers_of_two_communities_hold_their_base_once(
    communities: tuple[LoopbackFederation, LoopbackFederation], tmp_path: Path
) -> None:
    farm, town = communities
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"text": f"Row number {i}."}) + "\n" for i in range(30)))
    for community, one in zip(NAMES, communities, strict=True):
        one.wait("the port", lambda one=one: bool(one.hosted()), STEP_S)  # type: ignore[misc]
        link = one.invite(len(VOLUNTEERS))
        given = ("--data", str(rows), "--base", str(MODEL_DIR), "--yes", "--accept-weak")
        for name in VOLUNTEERS:
            own = ("--as", name, "--rank", str(RANKS[community][name]), "--enrol-only")
            farm.call("join", link, *given, *own, home=name)
    for name in VOLUNTEERS:
        farm.start(name, "run")

    def over() -> bool:
        return all(len(one.records()) > ROUNDS for one in communities)

    most = 0
    for _ in farm.watch("the rounds", over, 2 * STEP_S):
        most = max(most, *(len(workers(farm, name)) for name in VOLUNTEERS))
    assert most == 1
    for one in communities:
        for record in one.records()[1:]:
            assert set(record.contributors) == set(VOLUNTEERS), (record.dropped, record.reason)

    adapters_are_kept_at_home(farm)
    bs_are_kept_at_home(farm, town)

    status = farm.call("status", "--json", home="ada")
    shown = [json.loads(line) for line in status.splitlines()]
    assert [(line["community"], line["running"]) for line in shown] in (
        [(name, True) for name in order] for order in (NAMES, NAMES[::-1])
    )
    paused = farm.call("pause", home="ada")
    assert [line.split(":")[0] for line in sorted(paused.splitlines())] == list(NAMES)

    # One of them can be finished alone; the process goes on for the other.
    farm.call("resume", home="ada")
    farm.call("finish", "--community", "town", home="ada")

    def states() -> dict[str, str]:
        lines = farm.call("status", "--json", home="ada").splitlines()
        return {shown["community"]: shown["doing"] for shown in map(json.loads, lines)}

    farm.wait("town's end", lambda: states() == {"farm": "waiting", "town": "stopped"}, STEP_S)
    farm.call("finish", home="ada")
    farm.wait("the end", lambda: farm.processes["ada"].poll() is not None, STEP_S)
    assert farm.processes["ada"].returncode == 0
    logs = {path.parent.name: path.read_text() for path in farm.home("ada").rglob("volunteer.log")}
    assert len(logs) == 2
    assert all("finished, as you asked" in text for text in logs.values())


def adapters_are_kept_at_home(farm: LoopbackFederation) -> None:
    """Volunteers of two ranks keep an adapter each, measured beside the community's."""
    first, *rounds = farm.records()
    assert first.personal == {}
    for record in rounds:
        assert record.committed, record.reason
        assert record.ranks == RANKS["farm"]
        assert set(record.contributors) == set(record.personal) == set(VOLUNTEERS)
        assert record.personal_loss is not None
        assert all(record.personal[name] != record.losses[name] for name in VOLUNTEERS)


def bs_are_kept_at_home(farm: LoopbackFederation, town: LoopbackFederation) -> None:
    """A community whose Bs stay at home is called so, can be exported, and is sent As alone."""
    for record in town.records()[1:]:
        assert record.committed, record.reason
        assert set(record.personal) == set(VOLUNTEERS)
    where = ("--dir", str(town.folder))
    versions = json.loads(town.call("adapter", "list", "--json", *where))
    assert {version["method"] for version in versions} == {"local-B"}
    town.call("adapter", "export", str(town.root / "exported"), *where)
    asked = ("--preview", "--community", "town", "--json")
    previewed = json.loads(farm.call("sent", *asked, home="ada"))
    (entry,) = previewed if isinstance(previewed, list) else [previewed]
    assert entry["tensors"]
    assert all("lora_A" in tensor["name"] for tensor in entry["tensors"])
