"""The same training steps as somebody else would take them: plain peft and PyTorch, and trl.

Each runs in a process of its own that takes a number of steps whenever it is asked through a pipe,
and answers with the seconds a step took.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from nomoat.aggregation.protocol.adapter import AdapterSpec
from nomoat.aggregation.protocol.messages import TrainSettings
from nomoat.client.data.split import Split
from nomoat.lora.workers.jobs import TrainJob

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

RANK, ALPHA = 8, 16.0
SEED = b"benchmark"


@dataclass(frozen=True)
class Task:
    """Everyone's task: the model's folder, the rows, the shape of a step, and where."""

    model: str
    split: Split
    settings: TrainSettings
    checkpoint: Path
    device: str = "cpu"

    def job(self, spec: AdapterSpec, steps: int) -> TrainJob:
        """The training as nomoat does it."""
        from nomoat.lora.model.base_model import initial_adapter

        settings = replace(self.settings, local_steps=steps)
        values = initial_adapter(spec, SEED).vector
        return TrainJob(self.split.train, spec, values, settings, SEED, checkpoint=self.checkpoint)


Rival: TypeAlias = "Callable[[Connection, Task], None]"


@contextmanager
def somebody_else(rival: Rival, task: Task) -> Iterator[Connection]:
    """The rival's process, asked through a pipe."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=rival, args=(there, task), daemon=True)
    process.start()
    there.close()
    try:
        yield here
    finally:
        here.send(None)
        process.join()


def plain(pipe: Connection, task: Task) -> None:
    """A loop as anybody would write it."""
    import torch

    model, tokenizer, examples = _prepared(task)
    from nomoat.lora.data.batches import collate, shuffled_rows

    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    half = torch.autocast(task.device, torch.bfloat16, enabled=task.device == "cuda")
    while (steps := pipe.recv()) is not None:
        optimizer = torch.optim.AdamW(trained, lr=task.settings.learning_rate, weight_decay=0.0)
        began = _now(task)
        for rows in islice(shuffled_rows(examples, task.settings.batch_size, SEED), steps):
            batch = collate([examples[row] for row in rows], tokenizer.eos_token_id or 0)
            tensors = {k: torch.from_numpy(v).to(task.device) for k, v in batch.items()}
            with half:
                loss = model(**tensors).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            optimizer.zero_grad()
        pipe.send((_now(task) - began) / steps)


def sft(pipe: Connection, task: Task) -> None:
    """trl's SFTTrainer on the same encoded rows, learning on the same tokens."""
    import tempfile

    import datasets
    from trl import SFTConfig, SFTTrainer

    model, tokenizer, examples = _prepared(task)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    rows = datasets.Dataset.from_list(
        [
            {"input_ids": e.input_ids.tolist(), "completion_mask": e.trained.astype(int).tolist()}
            for e in examples
        ]
    )
    datasets.disable_progress_bars()
    with tempfile.TemporaryDirectory() as folder:
        while (steps := pipe.recv()) is not None:
            config = SFTConfig(
                output_dir=folder,
                max_steps=steps,
                per_device_train_batch_size=task.settings.batch_size,
                max_length=task.settings.seq_len,
                learning_rate=task.settings.learning_rate,
                lr_scheduler_type="constant",
                weight_decay=0.0,
                max_grad_norm=1.0,
                completion_only_loss=True,
                gradient_checkpointing=False,
                bf16=task.device == "cuda",
                use_cpu=task.device == "cpu",
                save_strategy="no",
                logging_strategy="no",
                report_to=[],
                disable_tqdm=True,
            )
            trainer = SFTTrainer(model, config, train_dataset=rows, processing_class=tokenizer)
            began = _now(task)
            trainer.train()
            pipe.send((_now(task) - began) / steps)


def _prepared(task: Task) -> tuple[Any, Any, Any]:
    """(model with a fresh LoRA, tokenizer, encoded rows)"""
    import peft
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from nomoat.lora.data.encoding import Encoder
    from nomoat.lora.data.reading import read
    from nomoat.lora.workers import preloaded  # noqa: F401 - one thread, as our workers have

    dtype = torch.bfloat16 if task.device == "cuda" else torch.float32
    tokenizer = AutoTokenizer.from_pretrained(task.model)
    model: Any = AutoModelForCausalLM.from_pretrained(task.model, dtype=dtype)
    model.config.use_cache = False
    config = peft.LoraConfig(
        r=RANK, lora_alpha=int(ALPHA), target_modules="all-linear", task_type="CAUSAL_LM"
    )
    model = peft.get_peft_model(model.to(task.device), config).train()
    encoder = Encoder.of(tokenizer, task.settings.seq_len)
    return model, tokenizer, encoder.encode_all(read(task.split.train).conversations).examples


def _now(task: Task) -> float:
    """Seconds, once the device has done what it was given."""
    if task.device == "cuda":
        import torch

        torch.cuda.synchronize()
    return time.perf_counter()
