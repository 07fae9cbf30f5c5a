"""Answers written side by side: rows of one batch, a token each at a time.

Rows come and go between two steps. What they have read lies in one cache, filled up on the left,
so that the newest token of every row stands in the last column.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from nomoat.lora.inference.requests import Question
from nomoat.lora.inference.voice_bank import VoiceBank

if TYPE_CHECKING:
    import torch

    from nomoat.lora.model.base_model import BaseModel


@dataclass(eq=False)
class AnswerRow:
    """One answer on its way. tokens: those written so far."""

    question: Question
    limit: int
    rng: Any = None  # torch.Generator
    tokens: list[int] = field(default_factory=list)


@dataclass(eq=False)
class AnswerBatch:
    """The rows at work and what the model remembers of them."""

    base: BaseModel
    bank: VoiceBank
    rows: list[AnswerRow] = field(default_factory=list)
    _cache: Any = None  # transformers.DynamicCache
    _mask: torch.Tensor | None = None  # (rows, columns): 1 where a row has a token

    def admit(self, rows: Sequence[AnswerRow]) -> torch.Tensor:
        """Read the prompts of new rows; the logits after each, (len(rows), V) float32 on the CPU.

        They join the batch, behind the rows that are there, before its next step.
        """
        import torch
        from transformers import DynamicCache

        longest = max(len(row.question.prompt) for row in rows)
        ids = torch.zeros((len(rows), longest), dtype=torch.long)
        mask = torch.zeros((len(rows), longest), dtype=torch.long)
        for k, row in enumerate(rows):
            prompt = torch.tensor(row.question.prompt)
            ids[k, longest - len(prompt) :], mask[k, longest - len(prompt) :] = prompt, 1
        self.bank.answer_as([row.question.voice for row in rows])
        cache = DynamicCache()
        logits = self._forward(ids.to(self.base.device), mask.to(self.base.device), cache)
        self._join(cache, mask.to(self.base.device))
        self.rows += rows
        return logits

    def step(self) -> torch.Tensor:
        """Read the newest token of every row; the logits after it, (rows, V)."""
        import torch

        assert self._mask is not None
        newest = torch.tensor([[row.tokens[-1]] for row in self.rows], device=self.base.device)
        self._mask = torch.cat([self._mask, self._mask.new_ones(len(self.rows), 1)], 1)
        self.bank.answer_as([row.question.voice for row in self.rows])
        return self._forward(newest, self._mask, self._cache)

    def keep(self, places: Sequence[int]) -> None:
        """Keep these rows alone, and no more columns than they need."""
        if len(places) == len(self.rows):
            return
        import torch

        self.rows = [self.rows[k] for k in places]
        if not self.rows or self._mask is None:
            self._cache, self._mask = None, None
            return
        chosen = torch.tensor(list(places), device=self.base.device)
        mask = self._mask[chosen]
        first = int(mask.any(0).int().argmax())
        self._mask = mask[:, first:]
        for layer in self._cache.layers:
            layer.keys = layer.keys[chosen][:, :, first:]
            layer.values = layer.values[chosen][:, :, first:]

    def _forward(self, ids: torch.Tensor, mask: torch.Tensor, cache: Any) -> torch.Tensor:
        import torch

        positions = (mask.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        last = {"logits_to_keep": 1} if _keeps_last(type(self.base.model)) else {}
        with torch.inference_mode():
            model: Any = self.base.model
            out = model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
                **last,
            )
            found: torch.Tensor = out.logits[:, -1].float().cpu()
        return found

    def _join(self, cache: Any, mask: torch.Tensor) -> None:
        """Put the cache of new rows behind the one that is there, both filled up on the left."""
        import torch
        from torch.nn.functional import pad

        if self._mask is None:
            self._cache, self._mask = cache, mask
            return
        longer = mask.shape[1] - self._mask.shape[1]
        here, there = max(longer, 0), max(-longer, 0)
        self._mask = torch.cat([pad(self._mask, (here, 0)), pad(mask, (there, 0))])
        for old, new in zip(self._cache.layers, cache.layers, strict=True):
            for name in ("keys", "values"):
                pair = (getattr(old, name), here), (getattr(new, name), there)
                filled = [pad(tensor, (0, 0, columns, 0)) for tensor, columns in pair]
                setattr(old, name, torch.cat(filled))


def _keeps_last(kind: type[Any]) -> bool:
    """Tell whether a model can leave out the logits of all tokens but the last."""
    return "logits_to_keep" in inspect.signature(kind.forward).parameters
