"""The next token of one answer, from its logits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nomoat.lora.inference.requests import Sampling

if TYPE_CHECKING:
    import torch


def choose(logits: torch.Tensor, sampling: Sampling, rng: torch.Generator | None) -> int:
    """A token id from logits (V,) float32, on the CPU; `rng` is used if temperature > 0."""
    import torch

    if sampling.temperature <= 0:
        return int(logits.argmax())
    probabilities = torch.softmax(logits / sampling.temperature, -1)
    if sampling.top_p < 1:
        ranked, places = probabilities.sort(descending=True)
        before = ranked.cumsum(0) - ranked  # mass of all that is likelier
        ranked[before >= sampling.top_p] = 0  # never the first
        return int(places[torch.multinomial(ranked, 1, generator=rng)])
    return int(torch.multinomial(probabilities, 1, generator=rng))


def told(logits: torch.Tensor, token: int, most: int) -> tuple[float, list[tuple[int, float]]]:
    """log p of `token`, and the `most` likeliest ids with theirs, before any temperature."""
    import torch

    logprobs = torch.log_softmax(logits, -1)
    if not most:
        return float(logprobs[token]), []
    values, ids = logprobs.topk(min(most, len(logprobs)))
    return float(logprobs[token]), list(zip(ids.tolist(), values.tolist(), strict=True))
