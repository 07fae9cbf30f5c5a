"""Workers side by side: the same bits whatever their number, and one clear line if one dies."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nomoat.aggregation.adapter import AdapterSpec
from nomoat.aggregation.errors import BadData, DoesNotFit, LocalProtocolError, NomoatError
from nomoat.aggregation.messages import TrainSettings
from nomoat.lora.adapter_io import attach, detach
from nomoat.lora.base_model import initial_adapter
from nomoat.lora.encoding import Encoder
from nomoat.lora.formats import Conversation, write_jsonl
from nomoat.lora.jobs import (
    EvaluateJob,
    Interval,
    SampleJob,
    ShardCounts,
    ShardJob,
    SpecJob,
    TrainJob,
    busy_seconds,
)
from nomoat.lora.pool import Pool, default_workers, end_fork_server
from nomoat.lora.train import train

SETTINGS = TrainSettings(local_steps=3, batch_size=4, seq_len=64, learning_rate=1e-2)


@pytest.fixture(scope="module")
def shards(
    tmp_path_factory: pytest.TempPathFactory, conversations: tuple[Conversation, ...]
) -> list[Path]:
    folder = tmp_path_factory.mktemp("shards")
    for number in range(4):
        write_jsonl(conversations[number::4], folder / f"{number}.jsonl")
    return sorted(folder.iterdir())


@pytest.fixture
def pool(model_folder: Path) -> Iterator[Pool]:
    pool = Pool(str(model_folder), workers=1, device="cpu")
    yield pool
    pool.close(now=True)


def _vectors(model_folder: Path, spec: AdapterSpec, shards: list[Path], workers: int) -> Any:
    start = initial_adapter(spec, b"i").vector
    with Pool(str(model_folder), workers=workers, device="cpu") as pool:
        jobs = [TrainJob(shard, spec, start, SETTINGS, shard.name.encode()) for shard in shards]
        trained = [pool.submit(job) for job in jobs]
        measured = [pool.submit(EvaluateJob(shard, spec, None, SETTINGS)) for shard in shards]
        found = [f.result().vector for f in trained], [f.result() for f in measured]
        assert len(pool.intervals) == 8
        assert 0 < pool.busy_seconds() <= sum(i.finished - i.started for i in pool.intervals)
    return found


def test_results_do_not_depend_on_the_number_of_workers(
    model_folder: Path, spec: AdapterSpec, shards: list[Path], base: Any, conversations: Any
) -> None:
    one, two = (_vectors(model_folder, spec, shards, workers) for workers in (1, 2))
    for left, right in zip(one[0], two[0], strict=True):
        assert np.array_equal(left, right)
    assert one[1] == two[1]
    model = attach(base, spec)  # and they are what this process computes
    examples = Encoder.of(base.tokenizer, 64).encode_all(conversations[0::4]).examples
    here = train(model, initial_adapter(spec, b"i"), examples, SETTINGS, b"0.jsonl", lambda: 0.0)
    detach(model)
    assert np.array_equal(here.vector, one[0][0])


def test_every_kind_of_job(pool: Pool, spec: AdapterSpec, shards: list[Path], base: Any) -> None:
    assert pool.submit(SpecJob(4, 8.0)).result() == spec
    narrow = pool.submit(SpecJob(2, 4.0, ("q_proj",))).result()
    start = initial_adapter(narrow, b"i").vector
    trained = pool.submit(TrainJob(shards[0], narrow, start, SETTINGS, b"s")).result()
    assert trained.steps == 3
    base_loss = pool.submit(EvaluateJob(shards[0], spec, None, SETTINGS)).result()  # another slot
    assert pool.submit(EvaluateJob(shards[0], narrow, None, SETTINGS)).result() == base_loss
    texts = pool.submit(SampleJob(("a?", "b?"), spec, None, 5)).result()
    assert len(texts) == 2
    counts = pool.submit(ShardJob(shards[0], 64)).result()
    assert counts == ShardCounts(10, counts.tokens, base_loss.tokens)


def test_a_shard_that_changes_is_read_anew(
    pool: Pool, tmp_path: Path, conversations: tuple[Conversation, ...]
) -> None:
    write_jsonl(conversations[:3], tmp_path / "s.jsonl")
    assert pool.submit(ShardJob(tmp_path / "s.jsonl", 64)).result().examples == 3
    write_jsonl(conversations[:5], tmp_path / "s.jsonl")
    assert pool.submit(ShardJob(tmp_path / "s.jsonl", 64)).result().examples == 5


def test_a_jobs_error_is_its_own_and_the_worker_lives(
    pool: Pool, spec: AdapterSpec, shards: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "bad.jsonl").write_text("{\n")
    with pytest.raises(BadData, match=r"bad\.jsonl:1: not valid JSON"):
        pool.submit(ShardJob(tmp_path / "bad.jsonl", 64)).result()
    with pytest.raises(BadData, match="there is no file"):
        pool.submit(ShardJob(tmp_path / "missing.jsonl", 64)).result()
    wrong: Any = EvaluateJob(shards[0], spec, "not a vector", SETTINGS)  # type: ignore[arg-type]
    with pytest.raises(NomoatError, match=r"^a worker failed: AttributeError") as failure:
        pool.submit(wrong).result()
    assert "Traceback" in str(failure.value.__cause__)
    assert pool.submit(ShardJob(shards[0], 64)).result().examples == 10


def _pid(pool: Pool) -> int:
    (process,) = pool._processes.values()
    assert process.process.pid is not None
    return process.process.pid


def test_a_killed_worker_is_one_clear_error_and_is_replaced(
    pool: Pool, spec: AdapterSpec, shards: list[Path]
) -> None:
    assert pool.submit(ShardJob(shards[0], 64)).result().examples == 10
    first = _pid(pool)
    settings = dataclasses.replace(SETTINGS, local_steps=50_000)
    start = initial_adapter(spec, b"i").vector
    endless = pool.submit(TrainJob(shards[0], spec, start, settings, b"s"))
    while not endless.running():
        pass
    os.kill(first, signal.SIGKILL)
    with pytest.raises(DoesNotFit, match="was killed, most likely because the memory ran out"):
        endless.result(timeout=60)
    assert pool.submit(ShardJob(shards[0], 64)).result(timeout=120).examples == 10
    assert _pid(pool) != first


def test_closing_now_drops_what_waits_and_stops_what_runs(
    model_folder: Path, spec: AdapterSpec, shards: list[Path]
) -> None:
    pool = Pool(str(model_folder), workers=1, device="cpu")
    settings = dataclasses.replace(SETTINGS, local_steps=50_000)
    start = initial_adapter(spec, b"i").vector
    futures = [
        pool.submit(TrainJob(shards[0], spec, start, settings, bytes([n]))) for n in range(3)
    ]
    while not futures[0].running():
        pass
    pool.close(now=True)
    with pytest.raises(NomoatError):
        futures[0].result(timeout=60)
    for waiting in futures[1:]:
        with pytest.raises(CancelledError):
            waiting.result(timeout=60)
    with pytest.raises(LocalProtocolError, match="closed"):
        pool.submit(ShardJob(shards[0], 64))


def test_a_model_that_cannot_be_loaded_fails_every_job_in_one_line(
    model_folder: Path, tmp_path: Path, shards: list[Path]
) -> None:
    with pytest.raises(BadData, match="there is no model folder"):
        Pool(str(tmp_path / "nowhere"))
    for file in model_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "model.safetensors").write_bytes(b"short")
    with Pool(str(tmp_path), workers=2, device="cpu") as pool:
        for future in [pool.submit(ShardJob(shards[0], 64)) for _ in range(3)]:
            with pytest.raises(BadData, match="cannot be loaded"):
                future.result(timeout=120)


PROGRAM = """
import sys
from pathlib import Path
from nomoat.lora.pool import Pool
from nomoat.lora.jobs import EvaluateJob, SpecJob
from nomoat.aggregation.messages import TrainSettings

def main():
    with Pool(sys.argv[1], workers=1) as pool:
        spec = pool.submit(SpecJob(4, 8.0)).result()
        print(pool.submit(EvaluateJob(Path(sys.argv[2]), spec, None, TrainSettings())).result())
    assert not {"torch", "transformers", "peft"} & sys.modules.keys()

if __name__ == "__main__":
    main()
"""


def test_the_process_that_submits_never_imports_torch(
    model_folder: Path, shards: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    done = subprocess.run(
        [sys.executable, tmp_path / "program.py", str(model_folder), str(shards[0])],
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout.startswith("Measured(loss=")
    assert done.stderr == ""


@pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux alone")
def test_after_the_fork_server_ended_no_process_is_left_and_a_new_pool_works(
    model_folder: Path, shards: list[Path]
) -> None:
    for _ in range(2):
        with Pool(str(model_folder), 1, "cpu") as pool:
            assert pool.submit(ShardJob(shards[0], 64)).result().examples > 0
        end_fork_server()
        # the resource tracker is Python's own, small, and stays
        left = [" ".join(child.cmdline()) for child in psutil.Process().children(recursive=True)]
        assert not [line for line in left if "forkserver" in line]


def test_default_workers_are_the_usable_cores_up_to_eight() -> None:
    assert 1 <= default_workers() <= min(8, len(os.sched_getaffinity(0)))


TIMES = st.integers(0, 40)


@given(st.lists(st.tuples(TIMES, TIMES).map(sorted), max_size=12))
def test_busy_seconds_is_the_length_of_the_union(spans: list[list[int]]) -> None:
    covered = {second for start, end in spans for second in range(start, end)}
    intervals = tuple(Interval(float(start), float(end)) for start, end in spans)
    assert busy_seconds(intervals) == len(covered)
