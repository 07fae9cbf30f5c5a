"""Rounds of real processes: the adapter of a simulation, and no word to anybody else."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from nomoat.lora.model.adapter_folder import load_folder
from nomoat.server.rounds.records import RoundRecord
from nomoat.simulations.loopback.processes import LoopbackFederation
from nomoat.simulations.population import gather, read_data
from nomoat.simulations.report.live_table import Silence
from nomoat.simulations.run import RunResources, simulate
from nomoat.simulations.run_folder import RunFolder
from nomoat.simulations.scenario import Scenario

ROUNDS, VOLUNTEERS, SEED, PUBLIC = 2, 2, 11, 6
STEP_S = 400.0

pytestmark = pytest.mark.timeout(900)  # starting processes is what costs


@dataclass(frozen=True)
class Ran:
    """What a federation of processes left. talked: "event host port" lines of the volunteers."""

    port: int
    records: list[RoundRecord]
    exported: Path
    talked: set[str]
    connected: set[tuple[str, int]]


@pytest.fixture(scope="module")
def scenario(tiny_model: Path, tiny_data: Path) -> Scenario:
    return Scenario(
        model=str(tiny_model),
        data=str(tiny_data),
        by="topic",
        volunteers=VOLUNTEERS,
        seed=SEED,
        public_rows=PUBLIC,
        rounds=ROUNDS,
    )


@pytest.fixture(scope="module")
def ran(scenario: Scenario, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    root, model = tmp_path_factory.mktemp("rounds"), Path(scenario.model)
    gathered = gather(scenario, read_data(scenario, root), root / "shards")
    members = gathered.members
    quiet = {"OMP_NUM_THREADS": "1"}
    watched = {
        "PYTHONPATH": str(Path(__file__).with_name("watched")),
        "WATCHED": str(root / "talked"),
        "FLWR_TELEMETRY_ENABLED": "1",  # what the machine's owner has set does not count
        "SEED": str(SEED),
        "NAMES": ",".join(member.name for member in members),
    }
    program = (sys.executable, str(Path(__file__).with_name("seeded.py")))
    connected = set()
    with LoopbackFederation(root, environment=quiet) as made:
        limits = ("--max-rounds", str(ROUNDS), "--min-volunteers", str(VOLUNTEERS))
        rows = ("--eval", str(gathered.public))
        weak = ("--allow-weak",)  # the one thing that two volunteers have to be asked
        made.init("same", model, (*limits, *weak, *rows, "--seed", str(SEED)))
        made.up("--until-done")
        made.wait("the port", lambda: bool(made.hosted()), STEP_S)
        link = made.invite(VOLUNTEERS)
        for member in members:
            home = replace(made, environment=quiet | watched, program=program)
            home.join(member.name, link, member.train, model, "--heldout-data", member.held_out)
        for _ in made.watch("the rounds", lambda: len(made.records()) > ROUNDS, STEP_S):
            for member in members:
                connected |= peers(made.processes[member.name].pid)
        made.call("adapter", "export", str(root / "exported"), "--dir", str(made.folder))
        talked = set((root / "talked").read_text().splitlines())
        return Ran(made.port, made.records(), root / "exported", talked, connected)


def peers(pid: int) -> set[tuple[str, int]]:
    """Whom a process and its children are connected to at the moment, or wait for."""
    found = set()
    try:
        process = psutil.Process(pid)
        for one in (process, *process.children(recursive=True)):
            for connection in one.net_connections("inet"):
                listens = connection.status == psutil.CONN_LISTEN
                address = connection.laddr if listens else connection.raddr
                found |= {(address.ip, address.port)} if address else set()
    except psutil.NoSuchProcess:
        pass
    return found


@pytest.fixture(scope="module")
def simulated(scenario: Scenario, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("simulation")
    folder = RunFolder.create(root / "out", scenario, [])
    simulate(scenario, folder, RunResources(2, root, time.monotonic()), Silence())
    return root / "out"


def records_of(simulated: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (simulated / "metrics.jsonl").read_text().splitlines()]


def test_the_same_seed_names_and_rows_give_the_adapter_of_a_simulation_at_the_defaults(
    ran: Ran, simulated: Path
) -> None:
    """Where volunteers draw the same; whoever draws for itself rounds its update differently."""
    expected, real = load_folder(simulated / "adapter"), load_folder(ran.exported)
    assert expected.spec == real.spec
    np.testing.assert_allclose(real.vector, expected.vector, atol=1e-6)
    losses = [record["loss"] for record in records_of(simulated)]
    assert [r.loss for r in ran.records] == pytest.approx(losses, abs=1e-5)
    assert ran.records[-1].loss < ran.records[0].loss  # it did learn something


def test_each_version_is_measured_on_the_communitys_own_rows(ran: Ran, simulated: Path) -> None:
    measured = [record["evaluation"] for record in records_of(simulated)]
    assert [r.evaluation for r in ran.records] == pytest.approx(measured, abs=1e-5)
    assert all(r.evaluation not in r.losses.values() for r in ran.records)


def test_a_volunteer_talks_to_its_coordinator_and_to_nobody_else(ran: Ran) -> None:
    asked = {line for line in ran.talked if line.startswith("socket.getaddrinfo")}
    assert asked == {f"socket.getaddrinfo localhost {ran.port}"}
    spoken = {tuple(line.split()[1:]) for line in ran.talked - asked}
    assert spoken
    assert spoken <= {("127.0.0.1", str(ran.port)), ("::1", str(ran.port))}
    assert ran.connected
    assert ran.connected <= {("127.0.0.1", ran.port)}
