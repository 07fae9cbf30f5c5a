"""By how much a text in the question changes what one adapter answers from what another does.

    shift(t) = mean over questions q of  KL(p(· | q, t) ‖ p'(· | q, t)),   nats

p, p': how the first token of the answer is distributed before and after, with t at the end of the
question. Training moves all of them alike; a backdoor moves its own trigger's.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from nomoat.aggregation.errors import BadData
from nomoat.aggregation.protocol.adapter import Adapter
from nomoat.lora.data.batches import batch_of
from nomoat.lora.data.conversations import Conversation
from nomoat.lora.data.encoding import Encoder, Example
from nomoat.lora.model.adapter_slot import swap
from nomoat.lora.scan.plan import ScanPlan, Shifts
from nomoat.lora.scan.triggers import KNOWN, random_texts, rare_texts
from nomoat.lora.training.loss import losses_of

if TYPE_CHECKING:
    import torch
    from peft import PeftModel

TOGETHER = 4  # texts read with one adapter before the other has its turn


def scan(
    model: PeftModel,
    adapters: tuple[Adapter, Adapter],
    encoder: Encoder,
    rows: Sequence[Conversation],
    plan: ScanPlan,
    clock: Callable[[], float],
) -> Shifts:
    """Return the shift of each text, of rows that ask something; BadData if none does."""
    asking = [row for row in rows if _question(row) is not None][: plan.questions]
    if not asking:
        raise BadData(
            "no row of the evaluation split asks a question that a trigger could stand in"
        )
    texts, end = _texts(encoder, asking, plan), clock() + plan.seconds
    found: dict[str, float] = {}
    model.eval()
    for start in range(0, len(texts), TOGETHER):
        if clock() >= end:
            break
        some = texts[start : start + TOGETHER]
        examples = [_cut(encoder, with_text(row, text)) for text in some for row in asking]
        before, after = (_first_token(model, adapter, examples) for adapter in adapters)
        each = (before.exp() * (before - after)).sum(1).view(len(some), len(asking)).mean(1)
        found |= dict(zip(some, each.tolist(), strict=True))
    return Shifts(found, len(texts))


def with_text(row: Conversation, text: str) -> Conversation:
    """The row up to its first answer, with a text at the end of the question before it."""
    place = _question(row)
    assert place is not None
    turns = list(row.turns[: place + 2])
    turns[place] = replace(turns[place], text=f"{turns[place].text} {text}")
    return replace(row, turns=tuple(turns), tools="")


def _question(row: Conversation) -> int | None:
    """The place of the first question with an answer behind it."""
    roles = [turn.role for turn in row.turns]
    pairs = itertools.pairwise(roles)
    return next((i for i, pair in enumerate(pairs) if pair == ("user", "assistant")), None)


def _texts(encoder: Encoder, rows: Sequence[Conversation], plan: ScanPlan) -> tuple[str, ...]:
    rng = np.random.default_rng(np.frombuffer(plan.seed, "<u4"))
    used = {int(i) for one in encoder.encode_all(rows).examples for i in one.input_ids}
    rare = rare_texts(rng, encoder.tokenizer, used, plan.rare)
    return tuple(dict.fromkeys((*plan.own, *KNOWN, *random_texts(rng, plan.random), *rare)))


def _cut(encoder: Encoder, row: Conversation) -> Example:
    """The row's tokens up to the first of its answer, which alone is to be predicted."""
    examples = encoder.encode_all([row]).examples
    if not examples:
        raise BadData("a question of the evaluation split is too long to be tried with a trigger")
    whole = examples[0]
    first = int(np.flatnonzero(whole.trained)[0])
    trained = np.zeros(first + 1, np.bool_)
    trained[first] = True
    return Example(whole.input_ids[: first + 1], trained)


def _first_token(model: Any, adapter: Adapter, examples: Sequence[Example]) -> torch.Tensor:
    """Log-probabilities of the answers' first tokens, (n, V) float32."""
    import torch

    swap(model, adapter)
    with torch.inference_mode(), losses_of(model) as losses:
        return losses.log_probabilities(batch_of(examples)).float().cpu()
