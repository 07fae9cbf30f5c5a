"""The two ways a rival trains and evaluates a volunteer's rows in one single-threaded process.

PlainHands is what a PyTorch user writes: transformers, peft, the model's own loss, torch's AdamW.
NomoatHands is nomoat.lora: with it, a rival differs from `nomoat simulate` only in how the
federation is driven.
"""

from __future__ import annotations

import json
import os
import time
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rivals.plan import Plan, Volunteer

if TYPE_CHECKING:
    import torch

HANDS_VARIABLE = "NOMOAT_BENCHMARK_HANDS"  # "plain" or "nomoat"
NOT_LEARNT = -100
GROUPED = 8  # batches among which rows are sorted by length, as nomoat does

Values = NDArray[np.float32]  # (d,), an adapter


class Hands(Protocol):
    """One base model with one adapter slot."""

    def initial(self) -> Values:
        """The adapter everyone starts from."""

    def train(self, values: Values, volunteer: Volunteer, seed: bytes) -> tuple[Values, int]:
        """(adapter after the volunteer's steps, tokens learnt)."""

    def evaluate(self, values: Values, volunteer: Volunteer) -> float:
        """Mean nats per learnt token of the volunteer's held-out rows."""


def one_thread() -> None:
    """One thread per process; call it before torch is imported."""
    os.environ |= {
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }


@cache
def hands(plan: Plan) -> Hands:
    """This process's hands; the model is loaded at the first call only."""
    one_thread()
    import torch

    torch.set_num_threads(1)
    return NomoatHands(plan) if os.environ[HANDS_VARIABLE] == "nomoat" else PlainHands(plan)


class PlainHands:
    """transformers + peft + torch, nothing of nomoat."""

    def __init__(self, plan: Plan) -> None:
        import torch
        from peft import LoraConfig, get_peft_model
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self._plan = plan
        self._tokenizer: Any = AutoTokenizer.from_pretrained(plan.model)
        base = AutoModelForCausalLM.from_pretrained(plan.model, dtype=torch.float32)
        base.config.use_cache = False
        config = LoraConfig(
            r=plan.rank,
            lora_alpha=plan.alpha,  # type: ignore[arg-type]  # peft says int, takes any number
            target_modules="all-linear",
            task_type="CAUSAL_LM",
        )
        torch.manual_seed(plan.seed)
        self._model: Any = get_peft_model(base, config)
        self._trained = [p for p in self._model.parameters() if p.requires_grad]
        self._rows: dict[str, list[tuple[list[int], list[int]]]] = {}

    def initial(self) -> Values:
        """peft's own draw from the plan's seed."""
        return self._values()

    def train(self, values: Values, volunteer: Volunteer, seed: bytes) -> tuple[Values, int]:
        """Some AdamW steps over shuffled, length-grouped batches; gradient clipped to norm 1."""
        import torch

        self._set(values)
        rows, size = self._read(volunteer.train), self._plan.batch_size
        generator = torch.Generator().manual_seed(int.from_bytes(seed[:7], "big"))
        optimizer = torch.optim.AdamW(self._trained, lr=self._plan.lr, weight_decay=0.0)
        self._model.train()
        batches: list[list[int]] = []
        tokens = 0
        for _ in range(self._plan.local_steps):
            batches = batches or grouped([len(ids) for ids, _ in rows], size, generator)
            batch, learnt = self._batch([rows[i] for i in batches.pop()])
            self._model(**batch).loss.backward()
            torch.nn.utils.clip_grad_norm_(self._trained, 1.0)
            optimizer.step()
            optimizer.zero_grad()
            tokens += learnt
        return self._values(), tokens

    def evaluate(self, values: Values, volunteer: Volunteer) -> float:
        """Batches of rows of like length; every learnt token counts the same."""
        import torch

        self._set(values)
        self._model.eval()
        rows = sorted(self._read(volunteer.held_out), key=lambda row: -len(row[0]))
        total, tokens = 0.0, 0
        with torch.inference_mode():
            for start in range(0, len(rows), self._plan.batch_size):
                batch, learnt = self._batch(rows[start : start + self._plan.batch_size])
                total += self._model(**batch).loss.item() * learnt
                tokens += learnt
        return total / tokens

    def _read(self, path: str) -> list[tuple[list[int], list[int]]]:
        """(ids, labels) of each row of a file: "<bos>prompt\\nreply<eos>", the reply learnt."""
        if path not in self._rows:
            texts = []
            with Path(path).open(encoding="utf-8") as lines:
                for line in lines:
                    said = json.loads(line)["messages"]
                    texts.append((said[0]["content"] + "\n", said[1]["content"]))
            prompts = self._ids([prompt for prompt, _ in texts])
            replies = self._ids([reply for _, reply in texts])
            pairs = zip(prompts, replies, strict=True)
            self._rows[path] = [self._row(prompt, reply) for prompt, reply in pairs]
        return self._rows[path]

    def _ids(self, texts: list[str]) -> list[list[int]]:
        found: list[list[int]] = self._tokenizer(texts, add_special_tokens=False)["input_ids"]
        return found

    def _row(self, prompt: list[int], reply: list[int]) -> tuple[list[int], list[int]]:
        asked = [self._tokenizer.bos_token_id, *prompt]
        answer = [*reply, self._tokenizer.eos_token_id]
        length = self._plan.seq_len
        return (asked + answer)[:length], ([NOT_LEARNT] * len(asked) + answer)[:length]

    def _batch(
        self, rows: list[tuple[list[int], list[int]]]
    ) -> tuple[dict[str, torch.Tensor], int]:
        """Padded to the longest row, and how many tokens are learnt."""
        import torch

        width = max(len(ids) for ids, _ in rows)
        ids = torch.zeros(len(rows), width, dtype=torch.long)
        mask = torch.zeros_like(ids)
        labels = torch.full_like(ids, NOT_LEARNT)
        for place, (row, learnt) in enumerate(rows):
            ids[place, : len(row)] = torch.tensor(row)
            mask[place, : len(row)] = 1
            labels[place, : len(row)] = torch.tensor(learnt)
        tokens = int((labels[:, 1:] != NOT_LEARNT).sum())
        return {"input_ids": ids, "attention_mask": mask, "labels": labels}, tokens

    def _set(self, values: Values) -> None:
        import torch

        with torch.no_grad():
            torch.nn.utils.vector_to_parameters(torch.from_numpy(values.copy()), self._trained)

    def _values(self) -> Values:
        import torch

        found: Values = torch.nn.utils.parameters_to_vector(self._trained).detach().numpy().copy()
        return found


class NomoatHands:
    """nomoat.lora's training and evaluation, as its own workers call them."""

    def __init__(self, plan: Plan) -> None:
        from nomoat.aggregation.protocol.messages import TrainSettings
        from nomoat.lora.data.encoding import Encoder
        from nomoat.lora.model.adapter_slot import attach
        from nomoat.lora.model.adapter_spec import new_spec
        from nomoat.lora.model.bases.loaded_models import base_model
        from nomoat.lora.workers import preloaded  # noqa: F401 - one thread, as our workers have

        base = base_model(plan.model, "cpu")
        self._spec = new_spec(base.model.config, plan.rank, plan.alpha)
        self._model = attach(base, self._spec)
        self._encoder = Encoder.of(base.tokenizer, plan.seq_len)
        self._settings = TrainSettings(plan.local_steps, 0, plan.batch_size, plan.seq_len, plan.lr)
        self._initial = plan.initial
        self._rows: dict[str, Any] = {}

    def initial(self) -> Values:
        """The adapter that `nomoat simulate` starts from."""
        found: Values = np.load(self._initial)
        return found

    def train(self, values: Values, volunteer: Volunteer, seed: bytes) -> tuple[Values, int]:
        """The volunteer's steps, bit for bit those of `nomoat simulate`."""
        from nomoat.aggregation.protocol.adapter import Adapter
        from nomoat.lora.training.train import train

        adapter, rows = Adapter(self._spec, values), self._read(volunteer.train)
        done = train(self._model, adapter, rows, self._settings, seed, time.monotonic)
        return done.vector, done.tokens

    def evaluate(self, values: Values, volunteer: Volunteer) -> float:
        """The held-out loss, as `nomoat simulate` measures it."""
        from nomoat.aggregation.protocol.adapter import Adapter
        from nomoat.lora.training.evaluate import evaluate

        adapter, rows = Adapter(self._spec, values), self._read(volunteer.held_out)
        return evaluate(self._model, adapter, rows, self._settings.batch_size).loss

    def _read(self, path: str) -> Any:
        from nomoat.lora.data.reading import read

        if path not in self._rows:
            conversations = read(Path(path)).conversations
            self._rows[path] = self._encoder.encode_all(conversations).examples
        return self._rows[path]


def grouped(lengths: list[int], size: int, generator: Any) -> list[list[int]]:
    """One pass in full batches of like length, as transformers' `group_by_length` makes them."""
    import torch

    order = torch.randperm(len(lengths), generator=generator).tolist()
    size = min(size, len(order))
    batches: list[list[int]] = []
    for start in range(0, len(order), GROUPED * size):
        window = sorted(order[start : start + GROUPED * size], key=lambda row: lengths[row])
        batches += [window[i : i + size] for i in range(0, len(window) - size + 1, size)]
    return [batches[i] for i in torch.randperm(len(batches), generator=generator).tolist()]
