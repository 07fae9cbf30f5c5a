"""A worker computes with the base that was agreed on, or not at all, whenever its files change."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from nomoat.aggregation.errors import BadData
from nomoat.aggregation.protocol.adapter import AdapterSpec
from nomoat.aggregation.protocol.messages import TrainSettings
from nomoat.lora.data.conversations import Conversation
from nomoat.lora.data.normal_form import write_jsonl
from nomoat.lora.model.base_model import initial_adapter, load
from nomoat.lora.model.files import content_hash
from nomoat.lora.workers.jobs import EvaluateJob, TrainJob
from nomoat.lora.workers.worker import Worker

SETTINGS = TrainSettings(local_steps=1, batch_size=4, seq_len=64, learning_rate=0.01)


@pytest.fixture
def folder(model_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(model_folder, tmp_path / "base"))


@pytest.fixture
def job(tmp_path: Path, conversations: tuple[Conversation, ...], spec: AdapterSpec) -> TrainJob:
    write_jsonl(conversations, tmp_path / "rows.jsonl")
    vector = initial_adapter(spec, b"1").vector
    return TrainJob(tmp_path / "rows.jsonl", spec, vector, SETTINGS, b"seed")


def write_over(file: Path, data: bytes) -> None:
    """Change a file in its place, its size and its time of change as before."""
    before = file.stat()
    with file.open("r+b") as opened:
        opened.seek(before.st_size - len(data))
        opened.write(data)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_weights_written_over_under_a_running_worker_train_nothing_until_they_are_back(
    folder: Path, job: TrainJob
) -> None:
    worker = Worker(load(str(folder), "cpu"), base_hash=content_hash(folder))
    first: Any = worker.run(job)
    weights = folder / "model.safetensors"
    end = weights.read_bytes()[-4096:]
    write_over(weights, bytes(4096))
    with pytest.raises(BadData, match="its files have changed; put them back"):
        worker.run(job)
    with pytest.raises(BadData, match="its files have changed"):
        worker.run(EvaluateJob(job.shard, job.spec, job.vector, SETTINGS))
    write_over(weights, end)
    again: Any = worker.run(job)
    assert again.vector.tobytes() == first.vector.tobytes()


def test_weights_written_over_during_a_job_give_no_result(
    folder: Path, job: TrainJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = Worker(load(str(folder), "cpu"), base_hash=content_hash(folder))
    done = worker._do

    def meanwhile(job: Any) -> Any:
        result = done(job)
        write_over(folder / "model.safetensors", bytes(64))
        return result

    monkeypatch.setattr(worker, "_do", meanwhile)
    with pytest.raises(BadData, match="its files have changed"):
        worker.run(job)


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_a_worker_does_not_start_on_a_base_that_is_not_the_one_agreed_on(
    folder: Path, name: str
) -> None:
    wanted = content_hash(folder)
    if name == "tokenizer.json":
        (folder / name).write_bytes((folder / name).read_bytes() + b"\n")
    else:
        write_over(folder / name, b"\1")
    with pytest.raises(BadData, match="its files have changed"):
        Worker(load(str(folder), "cpu"), base_hash=wanted)


def test_a_touched_file_is_no_other_base(folder: Path, job: TrainJob) -> None:
    worker = Worker(load(str(folder), "cpu"), base_hash=content_hash(folder))
    (folder / "model.safetensors").touch()
    assert worker.run(job).steps == 1
