"""What a pool does on a GPU, under a stand-in that keeps CUDA's rules (tests/fake_gpu)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from nomoat.aggregation.protocol.adapter import AdapterSpec
from nomoat.lora.data.conversations import Conversation
from nomoat.lora.data.normal_form import write_jsonl
from nomoat.lora.workers import jobs
from tests.fake_gpu.machine import FakeGpu

PROGRAM = """
import json, sys, time
from pathlib import Path
import numpy as np
import pynvml
from nomoat.aggregation.protocol.messages import TrainSettings
from nomoat.lora.device import turns
from nomoat.lora.layout.parts import Layout
from nomoat.lora.workers.jobs import SpecJob, ShardJob, TrainJob
from nomoat.lora.workers.pool import Pool

MODEL, SHARD, HERE = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
GPU = HERE / "gpu"
SETTINGS = TrainSettings(local_steps=40, batch_size=4, seq_len=64, learning_rate=1e-3)

def job(**more):
    return TrainJob(SHARD, SPEC, np.zeros(SPEC.size, np.float32), SETTINGS, b"seed", **more)

def fail(*passes):
    (GPU / "fail").write_text("\\n".join(passes))

def begun(pool, name):
    future = pool.submit(job(checkpoint=HERE / name))
    while not pool._state.begun and not future.done():
        time.sleep(0.01)
    return future

def told(name, seen):
    print(json.dumps([name, seen, len((GPU / "log").read_text().splitlines())]), flush=True)

def out_of_memory_and_lost():
    fail("", "", "oom", "", "oom")
    pieces = pool.submit(job()).result()
    fail("", "lost")
    failed = pool.submit(job()).exception()
    again = pool.submit(job()).result().steps
    same = [(x.last_loss, x.steps) for x in (WHOLE, pieces)]
    told("memory", [*same, [type(failed).__name__, str(failed)], again])

def out_of_memory_over_recordings():
    small = pool.submit(job(most_tokens=64)).result()
    (GPU / "record").write_text("\\n" * 2 + "oom\\n" * 2)
    fail(*[""] * 12, "oom")
    found = pool.submit(job()).result()
    (GPU / "record").write_text("cannot")
    eager = pool.submit(job()).result()
    told("recordings", [[x.first_loss, x.last_loss, x.steps] for x in (small, found, eager)])

def paused():
    future = begun(pool, "paused")
    used = [pynvml.nvmlDeviceGetMemoryInfo(0).used]
    pool.pause(10.0)
    used += [pynvml.nvmlDeviceGetMemoryInfo(0).used for _ in range(4)]
    told("paused", [type(future.exception()).__name__, used])

def two_cards():
    two = lambda: Pool(MODEL, 1, "cuda:0,cuda:1", shared=False, layout=Layout(True, True))
    pool = two()
    over = pool.submit(job()).result()
    long = begun(pool, "laid-out")
    pool.pause(10.0)
    with two() as pool:
        resumed = pool.submit(job(checkpoint=HERE / "laid-out")).result()
    same = bool((resumed.vector == over.vector).all())
    away = float(np.abs(over.vector - WHOLE.vector).max())
    losses = [WHOLE.last_loss, over.last_loss]
    told("two cards", [losses, same, away, type(long.exception()).__name__])

def two_pools():
    turns.TURN_S, said = 0.0, []
    one, other = Pool(MODEL, 1, shared=False), Pool(MODEL, 1, shared=False)
    other.tell_of_turns(said.append)
    long = begun(one, "interrupted")
    (first,) = one.pids
    counted = other.submit(ShardJob(SHARD, 64)).result().examples
    again = long.result().vector
    alone = one.submit(job()).result().vector
    one.close(), other.close()
    told("two pools", [counted, bool((alone == again).all()), said, first])

if __name__ == "__main__":
    import peft  # as a program might that embeds this one; it starts CUDA
    pool = Pool(MODEL, 1, "cuda", shared=False)
    SPEC = pool.submit(SpecJob(4, 8.0)).result().spec
    WHOLE = pool.submit(job()).result()
    out_of_memory_and_lost()
    out_of_memory_over_recordings()
    paused()
    two_cards()
    two_pools()
"""

pytestmark = pytest.mark.timeout(700)


@dataclass(frozen=True)
class Seen:
    """For each part of the program, what it printed, and the driver's log of that time."""

    gpu: FakeGpu
    parts: dict[str, tuple[Any, list[str]]]

    def happened(self, part: str) -> list[str]:
        """The words of the log of this part."""
        return [line.split(" ")[0] for line in self.parts[part][1]]


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory, model_folder: Path, conversations: Any) -> Seen:
    """One program for all, because starting workers is what costs."""
    here = tmp_path_factory.mktemp("program")
    shard, program = here / "rows.jsonl", here / "program.py"
    write_jsonl(list(conversations[:12]), shard)
    program.write_text(PROGRAM)
    gpu = FakeGpu(here / "gpu", more={"FAKE_GPU_COUNT": "2"})
    done = gpu.run(str(program), str(model_folder), str(shard), str(here), timeout_s=600)
    assert done.returncode == 0, done.stderr
    log, parts, at = gpu.log(), {}, 0
    for name, printed, until in map(json.loads, done.stdout.splitlines()):
        parts[name], at = (printed, log[at:until]), until
    return Seen(gpu, parts)


def test_workers_are_spawned_where_there_is_a_gpu(seen: Seen) -> None:
    assert seen.gpu.forks() == []
    assert "start(nomoat)" in seen.gpu.starts()


def test_two_pools_take_turns_and_the_one_that_was_interrupted_loses_nothing(seen: Seen) -> None:
    counted, same, told, first = seen.parts["two pools"][0]
    assert (counted, same) == (12, True)
    assert told == [f"its turn at the GPU: another nomoat of yours (process {first}) has it", None]


def test_a_gpu_that_runs_out_of_memory_or_falls_off_the_bus_costs_no_more_than_it_must(
    seen: Seen,
) -> None:
    whole, pieces, failed, again = seen.parts["memory"][0]
    assert pieces == [pytest.approx(whole[0], rel=1e-5), 40]
    assert "give_back" in seen.happened("memory")
    assert failed[0] == "NomoatError"
    assert failed[1].startswith("the GPU failed (CUDA error: unspecified launch failure")
    assert "\n" not in failed[1]
    assert again == 40


def test_a_pause_gives_the_memory_back_though_the_driver_says_so_late(seen: Seen) -> None:
    problem, used = seen.parts["paused"][0]
    assert problem == "Paused"
    assert used[0] == used[1] > used[-1]


def test_memory_that_runs_out_over_recordings_is_given_back_and_they_are_made_again(
    seen: Seen,
) -> None:
    """The losses are those of a run in pieces that were small from its beginning."""
    small, found, eager = seen.parts["recordings"][0]
    assert found == pytest.approx(small, rel=1e-5)
    assert eager == pytest.approx(small, rel=1e-5)
    happened = seen.happened("recordings")
    dropped = happened.index("begin_anew")
    assert "give_back" in happened[dropped:]
    assert "record" in happened[dropped:]


def test_a_worker_whose_layers_lie_on_two_cards_trains_as_one_on_one_card(seen: Seen) -> None:
    (alone, over), resumed, apart, told = seen.parts["two cards"][0]
    assert over == pytest.approx(alone, rel=1e-5)
    assert resumed
    assert apart < 1e-4
    assert told == "Paused"
    assert "record" in seen.happened("recordings")  # of the one card's pieces
    assert "record" not in seen.happened("two cards")


def test_a_jobs_need_is_this_machines_and_no_part_of_what_is_trained(
    spec: AdapterSpec, tmp_path: Path, conversations: tuple[Conversation, ...]
) -> None:
    import numpy as np

    from nomoat.aggregation.protocol.messages import TrainSettings

    shard = tmp_path / "rows.jsonl"
    write_jsonl(list(conversations[:3]), shard)
    start = np.zeros(spec.size, np.float32)
    one = jobs.TrainJob(shard, spec, start, TrainSettings(), b"s", needs_bytes=1)
    other = jobs.TrainJob(shard, spec, start, TrainSettings(), b"s", needs_bytes=None)
    assert jobs.digest(one) == jobs.digest(other)
    assert jobs.need_bytes(one) == 1
