"""Workers side by side: the same bits whatever their number, and one clear line if one dies."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nomoat.aggregation.errors import BadData, DoesNotFit, LocalProtocolError, NomoatError
from nomoat.aggregation.protocol.adapter import AdapterSpec
from nomoat.aggregation.protocol.messages import TrainSettings
from nomoat.lora.data.conversations import Conversation
from nomoat.lora.data.encoding import Encoder
from nomoat.lora.data.normal_form import write_jsonl
from nomoat.lora.data.row_counts import RowUse
from nomoat.lora.model.adapter_slot import attach, detach
from nomoat.lora.model.base_model import initial_adapter
from nomoat.lora.training.checkpoint import Paused
from nomoat.lora.training.steps import TrainingStep
from nomoat.lora.training.train import train
from nomoat.lora.workers.cores import default_workers
from nomoat.lora.workers.jobs import (
    EvaluateJob,
    HeldBase,
    Interval,
    Pause,
    SampleJob,
    ShardCounts,
    ShardJob,
    SpecJob,
    TrainJob,
    busy_seconds,
)
from nomoat.lora.workers.pool import Pool

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
    assert pool.submit(SpecJob(4, 8.0)).result().spec == spec
    narrow = pool.submit(SpecJob(2, 4.0, ("q_proj",))).result().spec
    start = initial_adapter(narrow, b"i").vector
    told: list[TrainingStep] = []
    pool.tell_of_steps(told.append)
    trained = pool.submit(TrainJob(shards[0], narrow, start, SETTINGS, b"s")).result()
    assert trained.steps == 3
    assert (told[0].step, told[0].steps) == (1, 3)
    assert 0 < told[0].loss < 100
    base_loss = pool.submit(EvaluateJob(shards[0], spec, None, SETTINGS)).result()  # another slot
    for use in (trained.rows, base_loss.rows):
        assert use == RowUse(10, SETTINGS.seq_len, 0, ())
    short = dataclasses.replace(SETTINGS, seq_len=8)
    use = pool.submit(EvaluateJob(shards[0], narrow, None, short)).result().rows
    assert use is not None
    lost = sum(each.count for each in use.dropped)
    assert (use.rows, use.seq_len) == (10, 8)
    assert use.cut + lost > 0
    assert f"{use.cut} of 10 cut off at 8 tokens" in use.line()
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
    (process,) = pool._state.processes.values()
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
        endless.result(timeout=200)
    assert pool.submit(ShardJob(shards[0], 64)).result(timeout=120).examples == 10
    assert _pid(pool) != first


def test_a_worker_whose_gpu_is_lost_says_what_did_not_fit_and_is_replaced(
    pool: Pool, shards: list[Path]
) -> None:
    assert pool.submit(ShardJob(shards[0], 64)).result().examples == 10
    first = _pid(pool)
    lost = partial(exec, "raise RuntimeError('CUDA error: CUBLAS_STATUS_ALLOC_FAILED')")
    with pytest.raises(DoesNotFit, match="the memory is too small"):
        pool.submit(ShardJob(cast("Path", SimpleNamespace(exists=lost)), 64)).result()
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
        futures[0].result(timeout=200)
    for waiting in futures[1:]:
        with pytest.raises(CancelledError):
            waiting.result(timeout=200)
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


def test_default_workers_are_the_usable_cores_up_to_eight() -> None:
    assert 1 <= default_workers() <= min(8, len(os.sched_getaffinity(0)))


TIMES = st.integers(0, 40)


@given(st.lists(st.tuples(TIMES, TIMES).map(sorted), max_size=12))
def test_busy_seconds_is_the_length_of_the_union(spans: list[list[int]]) -> None:
    covered = {second for start, end in spans for second in range(start, end)}
    intervals = tuple(Interval(float(start), float(end)) for start, end in spans)
    assert busy_seconds(intervals) == len(covered)


LONG = dataclasses.replace(SETTINGS, local_steps=400)


def _uninterrupted(model: Any, spec: AdapterSpec, base: Any, conversations: Any) -> Any:
    examples = Encoder.of(base.tokenizer, 64).encode_all(conversations[0::4]).examples
    return train(model, initial_adapter(spec, b"i"), examples, LONG, b"s", lambda: 0.0).vector


def _long_job(spec: AdapterSpec, shards: list[Path], path: Path) -> TrainJob:
    start = initial_adapter(spec, b"i").vector
    return TrainJob(shards[0], spec, start, LONG, b"s", checkpoint=path)


@pytest.mark.timeout(300)
def test_a_paused_training_gives_its_memory_back_and_ends_with_the_same_bits(  # noqa: PLR0917 - fixtures
    model_folder: Path,
    model: Any,
    spec: AdapterSpec,
    shards: list[Path],
    base: Any,
    conversations: Any,
    tmp_path: Path,
) -> None:
    path, pauses, result = tmp_path / "checkpoint", 0, None
    while result is None:
        pool = Pool(str(model_folder), 1, "cpu", shared=False)
        future = pool.submit(_long_job(spec, shards, path))
        while not pool._state.begun and not future.done():
            time.sleep(0.01)
        with contextlib.suppress(TimeoutError):
            result = future.result(timeout=0.5 if pauses < 1 else None).vector
            pool.close()
        if result is None:
            (pid,) = pool.pids
            pool.pause(10.0)
            pauses += 1
            with pytest.raises(Paused):
                future.result()
            assert not psutil.pid_exists(pid)
            assert path.exists()
            with pytest.raises(LocalProtocolError, match="closed"):
                pool.submit(ShardJob(shards[0], 64))
    assert pauses > 0
    assert np.array_equal(result, _uninterrupted(model, spec, base, conversations))


@pytest.mark.timeout(300)
def test_a_pause_before_the_base_is_loaded_ends_the_worker_too(
    model_folder: Path, spec: AdapterSpec, shards: list[Path], tmp_path: Path
) -> None:
    pool = Pool(str(model_folder), 1, "cpu", shared=False)
    future = pool.submit(_long_job(spec, shards, tmp_path / "checkpoint"))
    while not pool.pids:
        time.sleep(0.01)
    (pid,) = pool.pids
    pool.pause(10.0)
    with pytest.raises(Paused):
        future.result()
    assert not psutil.pid_exists(pid)


@pytest.mark.timeout(300)
def test_a_pause_before_the_first_piece_waits_for_nothing_and_keeps_the_checkpoint(
    model_folder: Path, spec: AdapterSpec, tmp_path: Path
) -> None:
    path = tmp_path / "checkpoint"
    path.write_bytes(b"of an earlier worker")
    endless = partial(exec, "import time; time.sleep(1000)")  # a shard that is never read
    shard = cast("Path", SimpleNamespace(exists=endless))
    pool = Pool(str(model_folder), 1, "cpu", shared=False)
    future = pool.submit(_long_job(spec, [shard], path))
    while not pool._state.doing and not future.done():
        time.sleep(0.01)
    (pid,) = pool.pids
    pool.pause(1000.0)
    with pytest.raises(Paused):
        future.result()
    assert not psutil.pid_exists(pid)
    assert path.read_bytes() == b"of an earlier worker"


def test_a_pause_that_comes_before_its_job_is_that_jobs_and_no_others(
    pool: Pool, spec: AdapterSpec, shards: list[Path], tmp_path: Path
) -> None:
    counts = pool.submit(ShardJob(shards[0], 64)).result()
    (process,) = pool._state.processes.values()
    process.tell(Pause())
    with pytest.raises(Paused):
        pool.submit(_long_job(spec, shards, tmp_path / "checkpoint")).result()
    assert pool.submit(ShardJob(shards[0], 64)).result() == counts


def _lives(pid: int) -> bool:
    try:  # whoever inherits an orphan may take its time to reap it
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


ORPHAN = """
import sys, time
from pathlib import Path
import numpy as np
from nomoat.lora.workers.pool import Pool
from nomoat.lora.workers.jobs import SpecJob, TrainJob
from nomoat.aggregation.protocol.messages import TrainSettings

if __name__ == "__main__":
    pool = Pool(sys.argv[1], 1, "cpu", shared=False)
    spec = pool.submit(SpecJob(4, 8.0)).result().spec
    settings = TrainSettings(local_steps=50_000, batch_size=4, seq_len=64)
    start = np.zeros(spec.size, np.float32)
    shard, path = Path(sys.argv[2]), Path(sys.argv[3])
    future = pool.submit(TrainJob(shard, spec, start, settings, b"s", checkpoint=path))
    while not pool._state.begun and not future.done():
        time.sleep(0.01)
    assert not future.done(), future.result()
    time.sleep(1.0)
    (pid,) = pool.pids
    print(pid, flush=True)
    time.sleep(100)
"""


@pytest.mark.timeout(300)
def test_a_worker_whose_parent_was_killed_lays_its_training_down(
    model_folder: Path, shards: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "program.py").write_text(ORPHAN)
    path = tmp_path / "checkpoint"
    command = [sys.executable, str(tmp_path / "program.py"), str(model_folder), str(shards[0])]
    with subprocess.Popen([*command, str(path)], stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        pid = int(program.stdout.readline())
        assert not path.exists()
        program.kill()
    while _lives(pid):
        time.sleep(0.05)
    assert path.exists()


def test_a_worker_uses_as_many_cores_as_its_owner_says(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from nomoat.lora.workers.worker import _started_device

    told: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", told.append)
    assert _started_device(HeldBase("", "cpu")) == ("cpu", frozenset())
    assert told == []
    _started_device(HeldBase("", "cpu", threads=3))
    assert told == [3]
