"""The same steps three ways: ours, plain peft with PyTorch, and trl's SFTTrainer."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any

from nomoat.aggregation.protocol.messages import TrainSettings
from nomoat.lora.data.encoding import Example

RANK, ALPHA, RATE = 8, 16.0, 1e-4
SEED = b"benchmark"


def timed(way: Callable[[], object], device: Any) -> float:
    """Seconds that `way` takes, the device's work included."""
    device.synchronise()
    began = time.perf_counter()
    way()
    device.synchronise()
    return time.perf_counter() - began


def median_ms(ways: Sequence[Callable[[], object]], steps: int, device: Any, turns: int) -> Any:
    """Milliseconds of a step of each way, taken in turns; the first turn warms up."""
    found = [[timed(way, device) for way in ways] for _ in range(turns + 1)]
    return [1000 * statistics.median(column) / steps for column in zip(*found[1:], strict=True)]


def slot_in(base: Any) -> Any:
    """Attach an adapter to `base` as nomoat does."""
    from nomoat.lora.model.adapter_slot import attach
    from nomoat.lora.model.base_model import new_spec

    return attach(base, new_spec(base.model.config, RANK, ALPHA))


def ours(model: Any, examples: Sequence[Example], rows: int, steps: int) -> Callable[[], object]:
    """Return one round's training by nomoat, in a slot that `slot_in` attached."""
    from nomoat.lora.model.base_model import initial_adapter, new_spec
    from nomoat.lora.training.train import train

    adapter = initial_adapter(new_spec(model.get_base_model().config, RANK, ALPHA), b"i")
    longest = max(len(example.input_ids) for example in examples)
    settings = TrainSettings(steps, 0, rows, longest, RATE)
    return lambda: train(model, adapter, examples, settings, SEED, time.monotonic)


def peft_model(base: Any) -> Any:
    """Put an adapter on `base` as peft's own documentation does."""
    import peft

    config = peft.LoraConfig(
        r=RANK, lora_alpha=int(ALPHA), target_modules="all-linear", task_type="CAUSAL_LM"
    )
    return peft.get_peft_model(base.model, config).train()


def plain(base: Any, examples: Sequence[Example], rows: int, steps: int) -> Callable[[], object]:
    """Return the loop that anybody would write with peft and PyTorch."""
    import torch

    from nomoat.lora.data.batches import collate, shuffled_rows

    model = peft_model(base)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    kind = base.device.type

    def loop() -> None:
        optimizer = torch.optim.AdamW(trained, lr=RATE, weight_decay=0.0)
        for chosen in islice(shuffled_rows(examples, rows, SEED), steps):
            batch = collate([examples[row] for row in chosen], 0)
            tensors = {name: torch.from_numpy(v).to(kind) for name, v in batch.items()}
            with torch.autocast(kind, torch.bfloat16, enabled=kind == "cuda"):
                loss = model(**tensors).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            optimizer.zero_grad()

    return loop


def sft(
    base: Any, examples: Sequence[Example], rows: int, steps: int, folder: str, tokenizer: Any
) -> Callable[[], object]:
    """Return trl's SFTTrainer on the same encoded rows, learning on the same tokens."""
    import datasets
    from trl import SFTConfig, SFTTrainer

    datasets.disable_progress_bars()
    model = peft_model(base)
    table = datasets.Dataset.from_list(
        [
            {"input_ids": e.input_ids.tolist(), "completion_mask": e.trained.astype(int).tolist()}
            for e in examples
        ]
    )
    cuda = base.device.type == "cuda"
    config = SFTConfig(
        output_dir=folder,
        max_steps=steps,
        per_device_train_batch_size=rows,
        max_length=max(len(example.input_ids) for example in examples),
        learning_rate=RATE,
        lr_scheduler_type="constant",
        weight_decay=0.0,
        max_grad_norm=1.0,
        completion_only_loss=True,
        gradient_checkpointing=False,
        optim="adamw_torch_fused" if cuda else "adamw_torch",
        bf16=cuda,
        tf32=None,
        use_cpu=not cuda,
        save_strategy="no",
        logging_strategy="no",
        report_to=[],
        disable_tqdm=True,
    )
    trainer: Any = SFTTrainer(model, config, train_dataset=table, processing_class=tokenizer)
    trains: Callable[[], object] = trainer.train
    return trains
