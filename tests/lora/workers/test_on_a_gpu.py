"""What a pool does on a GPU, under a stand-in that keeps CUDA's rules (tests/fake_gpu)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nomoat.aggregation.protocol.adapter import AdapterSpec
from nomoat.lora.data.conversations import Conversation
from nomoat.lora.data.normal_form import write_jsonl
from nomoat.lora.workers import jobs
from tests.fake_gpu.machine import FakeGpu

COMMON = """
import json, sys, time
from dataclasses import replace
from pathlib import Path
import numpy as np
from nomoat.aggregation.errors import NomoatError
from nomoat.aggregation.protocol.messages import TrainSettings
from nomoat.lora.device import turns
from nomoat.lora.workers.jobs import SpecJob, ShardJob, TrainJob
from nomoat.lora.workers.pool import Pool

MODEL, SHARD, HERE = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
SETTINGS = TrainSettings(local_steps=40, batch_size=4, seq_len=64, learning_rate=1e-3)

def job(spec, **more):
    start = np.zeros(spec.size, np.float32)
    return TrainJob(SHARD, spec, start, SETTINGS, b"seed", **more)

def fail(*passes):
    (HERE / "gpu" / "fail").write_text("\\n".join(passes))

def said(problem):
    return [type(problem).__name__, str(problem)]
"""


@pytest.fixture
def gpu(tmp_path: Path) -> FakeGpu:
    return FakeGpu(tmp_path / "gpu", more={"FAKE_GPU_COUNT": "2"})


@pytest.fixture
def run(gpu: FakeGpu, tmp_path: Path, model_folder: Path, conversations: Any) -> Any:
    """Run a program with two pools or one on this GPU; what it prints as JSON."""
    shard = tmp_path / "rows.jsonl"
    write_jsonl(list(conversations[:12]), shard)

    def program(body: str) -> Any:
        file = tmp_path / "program.py"
        lines = "\n".join(f"    {line}" for line in body.strip().splitlines())
        file.write_text(f"{COMMON}\nif __name__ == '__main__':\n{lines}\n")
        done = gpu.run(str(file), str(model_folder), str(shard), str(tmp_path))
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return program


def test_two_pools_take_turns_and_the_one_that_was_interrupted_loses_nothing(
    run: Any, gpu: FakeGpu
) -> None:
    counted, same, told, first = run("""
turns.TURN_S = 0.0
told = []
one, other = Pool(MODEL, 1, shared=False), Pool(MODEL, 1, shared=False)
other.tell_of_turns(told.append)
spec = one.submit(SpecJob(4, 8.0)).result().spec
alone = one.submit(job(spec)).result().vector
long = one.submit(job(spec, checkpoint=HERE / "checkpoint"))
while not one._state.begun and not long.done():
    time.sleep(0.01)
(first,) = one.pids
counted = other.submit(ShardJob(SHARD, 64)).result().examples
again = long.result().vector
one.close(), other.close()
print(json.dumps([counted, bool((alone == again).all()), told, first]))
""")
    assert (counted, same) == (12, True)
    assert told == [f"its turn at the GPU: another nomoat of yours (process {first}) has it", None]
    assert gpu.forks() == []


def test_a_gpu_that_runs_out_of_memory_or_falls_off_the_bus_costs_no_more_than_it_must(
    run: Any, gpu: FakeGpu
) -> None:
    """And a pause gives the memory back, though the driver says so late."""
    whole, pieces, failed, again, paused, used = run("""
import pynvml
pool = Pool(MODEL, 1, "cuda", shared=False)
spec = pool.submit(SpecJob(4, 8.0)).result().spec
whole = pool.submit(job(spec)).result()
fail("", "", "oom", "", "oom")
pieces = pool.submit(job(spec)).result()
fail("", "lost")
failed = pool.submit(job(spec)).exception()
again = pool.submit(job(spec)).result()
future = pool.submit(job(spec, checkpoint=HERE / "checkpoint"))
while not pool._state.begun and not future.done():
    time.sleep(0.01)
used = [pynvml.nvmlDeviceGetMemoryInfo(0).used]
pool.pause(10.0)
used += [pynvml.nvmlDeviceGetMemoryInfo(0).used for _ in range(4)]
same = [(x.last_loss, x.steps) for x in (whole, pieces)]
print(json.dumps([*same, said(failed), again.steps, said(future.exception())[0], used]))
""")
    assert pieces == [pytest.approx(whole[0], rel=1e-5), 40]
    assert any(line.startswith("give_back") for line in gpu.log())
    assert failed[0] == "NomoatError"
    assert failed[1].startswith("the GPU failed (CUDA error: unspecified launch failure")
    assert "\n" not in failed[1]
    assert (again, paused) == (40, "Paused")
    assert used[0] == used[1] > used[-1]


def test_memory_that_runs_out_over_recordings_is_given_back_and_they_are_made_again(
    run: Any, gpu: FakeGpu
) -> None:
    """The losses are those of a run in pieces that were small from its beginning."""
    small, found, eager = run("""
pool = Pool(MODEL, 1, "cuda", shared=False)
spec = pool.submit(SpecJob(4, 8.0)).result().spec
small = pool.submit(job(spec, most_tokens=64)).result()
(HERE / "gpu" / "record").write_text("\\n" * 2 + "oom\\n" * 2)
fail(*[""] * 12, "oom")
found = pool.submit(job(spec)).result()
(HERE / "gpu" / "record").write_text("cannot")
eager = pool.submit(job(spec)).result()
print(json.dumps([[x.first_loss, x.last_loss, x.steps] for x in (small, found, eager)]))
""")
    assert found == pytest.approx(small, rel=1e-5)
    assert eager == pytest.approx(small, rel=1e-5)
    happened = [line.split(" ")[0] for line in gpu.log()]
    dropped = happened.index("begin_anew")
    assert "give_back" in happened[dropped:]
    assert "record" in happened[dropped:]


def test_a_worker_whose_layers_lie_on_two_cards_trains_as_one_on_one_card(
    run: Any, gpu: FakeGpu
) -> None:
    alone, over, resumed, apart, told = run("""
from nomoat.lora.layout.parts import Layout
pool = Pool(MODEL, 1, "cuda:0", shared=False)
spec = pool.submit(SpecJob(4, 8.0)).result().spec
alone = pool.submit(job(spec)).result()
pool.close()
two = lambda: Pool(MODEL, 1, "cuda:0,cuda:1", shared=False, layout=Layout(True, True))
pool = two()
over = pool.submit(job(spec)).result()
long = pool.submit(job(spec, checkpoint=HERE / "checkpoint"))
while not pool._state.begun and not long.done():
    time.sleep(0.01)
pool.pause(10.0)
told = type(long.exception()).__name__
pool = two()
resumed = pool.submit(job(spec, checkpoint=HERE / "checkpoint")).result()
pool.close()
same = bool((resumed.vector == over.vector).all())
away = float(np.abs(over.vector - alone.vector).max())
print(json.dumps([alone.last_loss, over.last_loss, same, away, told]))
""")
    assert over == pytest.approx(alone, rel=1e-5)
    assert resumed
    assert apart < 1e-4
    assert told == "Paused"
    assert gpu.forks() == []
    happened = [line.split(" ")[0] for line in gpu.log()]
    assert "record" in happened  # of the one card's pieces
    assert "record" not in happened[-1 - happened[::-1].index("start(nomoat)") :]


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
