"""The model as this project computes it: what every export is compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from nomoat.aggregation.errors import NomoatError

if TYPE_CHECKING:
    from nomoat.aggregation.protocol.adapter import Adapter
    from nomoat.lora.model.base_model import BaseModel

LogProbs: TypeAlias = NDArray[np.float64]  # (prompts, tokens of the vocabulary)
PROMPTS = 6
PROMPT_TOKENS = 12


@dataclass(frozen=True, slots=True)
class Difference:
    """Two models over the same prompts. kl: mean KL(reference ‖ other), in nats.

    largest: of |Δ log p| over all tokens compared; same: prompts where both prefer one token.
    """

    largest: float
    kl: float
    same: int
    prompts: int

    def __str__(self) -> str:
        return (
            f"log-probabilities within {self.largest:.1e}, KL {self.kl:.1e} nats, the same "
            f"likeliest token in {self.same} of {self.prompts}"
        )


@dataclass(frozen=True, slots=True)
class Bound:
    """Limits of a difference; `largest` is infinite where quantising moves rare tokens."""

    largest: float
    kl: float

    def check(self, found: Difference, what: str) -> None:
        """NomoatError if `found` is beyond this bound."""
        if not (found.largest <= self.largest and found.kl <= self.kl):
            raise NomoatError(
                f"{what} does not compute what was measured ({found}; allowed {self.largest:.0e} "
                f"and KL {self.kl:.0e}); nothing was written"
            )


def prompts(tokens: Mapping[str, Sequence[int]], bos: int | None) -> tuple[tuple[int, ...], ...]:
    """Short beginnings of some texts, each after <bos> if there is one."""
    first = () if bos is None else (bos,)
    texts = [ids for ids in tokens.values() if ids][:PROMPTS]
    return tuple((*first, *ids[:PROMPT_TOKENS]) for ids in texts)


def next_logprobs(
    base: BaseModel, adapter: Adapter | None, asked: Sequence[Sequence[int]]
) -> LogProbs:
    """log p of every token after each of `asked`, by transformers (and PEFT, with an adapter)."""
    from nomoat.lora.model.adapter_slot import attach, detach, swap

    if adapter is None:
        return logprobs(base.model, base.device, asked)
    model = attach(base, adapter.spec)
    try:
        swap(model, adapter)
        return logprobs(model, base.device, asked)
    finally:
        detach(model)


def logprobs(model: Any, device: Any, asked: Sequence[Sequence[int]]) -> LogProbs:
    """log p of every token after each of `asked`, by a model as it stands."""
    import torch

    rows = []
    with torch.inference_mode():
        for ids in asked:
            logits = model(input_ids=torch.tensor([list(ids)], device=device)).logits[0, -1]
            rows.append(torch.log_softmax(logits.double().cpu(), -1).numpy())
    return np.stack(rows)


def compare(reference: LogProbs, other: LogProbs) -> Difference:
    """The difference of two models over whole vocabularies."""
    kl = (np.exp(reference) * (reference - other)).sum(-1).mean()
    same = int((reference.argmax(-1) == other.argmax(-1)).sum())
    return Difference(float(np.abs(reference - other).max()), float(kl), same, len(reference))


def compare_some(reference: LogProbs, other: Sequence[Mapping[int, float]]) -> Difference:
    """As `compare`, where the other side tells only its likeliest tokens of each prompt."""
    largest, divergence, same = 0.0, 0.0, 0
    for row, told in zip(reference, other, strict=True):
        places = np.fromiter(told.keys(), np.int64)
        theirs = np.fromiter(told.values(), np.float64)
        ours = row[places]
        seen = np.isfinite(theirs)
        largest = max(largest, float(np.abs(ours - theirs)[seen].max()))
        divergence += float((np.exp(ours) * (ours - theirs))[seen].sum())
        same += int(places[theirs.argmax()] == row.argmax())
    return Difference(largest, abs(divergence) / len(reference), same, len(reference))
