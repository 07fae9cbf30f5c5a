"""The loss of a model with an adapter on given rows, and the text it writes."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nomoat.aggregation.errors import BadData, Diverged
from nomoat.aggregation.protocol.adapter import Adapter
from nomoat.lora.data.batches import Batch, by_length, pieces
from nomoat.lora.data.encoding import Encoder, Example
from nomoat.lora.data.row_counts import RowUse
from nomoat.lora.device import backends
from nomoat.lora.model.adapter_slot import swap
from nomoat.lora.model.context import context_of
from nomoat.lora.training.loss import Losses, losses_of
from nomoat.lora.training.out_of_memory import halved
from nomoat.lora.training.train import piece_tokens

if TYPE_CHECKING:
    import torch
    from peft import PeftModel


@dataclass(frozen=True, slots=True)
class MeasuredLoss:
    """Mean cross-entropy, nats per trained token, over that many tokens.

    rows: what became of the rows of the file that was measured on, where there was one.
    """

    loss: float
    tokens: int
    rows: RowUse | None = None


def evaluate(
    model: PeftModel,
    adapter: Adapter | None,
    examples: Sequence[Example],
    batch_size: int,
    most_tokens: int | None = None,
) -> MeasuredLoss:
    """Measure the adapter, or the base model alone if None, on `examples`.

    Every token counts the same, wherever it stands. Batches go through the model in the pieces that
    training cuts; how large they are moves the last bits. Raises Diverged if the loss is not
    finite.
    """
    import torch

    if not examples:
        raise BadData("there is nothing to evaluate on: no row has a trained token")
    parts: list[torch.Tensor] = []
    tokens, limit = 0, piece_tokens(model, most_tokens)
    model.eval()
    with carrying(model, adapter), torch.inference_mode(), losses_of(model) as loss_of:
        for batch in by_length(examples, batch_size):
            losses, limit = _in_pieces(loss_of, batch, limit)
            parts += losses
            tokens += len(batch.targets)
    loss = float(torch.stack(parts).cpu().double().sum()) / tokens  # MPS has no float64
    if not math.isfinite(loss):
        raise Diverged("the adapter's loss is not a finite number: its training has diverged")
    return MeasuredLoss(loss, tokens)


def _in_pieces(loss_of: Losses, batch: Batch, most_tokens: int) -> tuple[list[torch.Tensor], int]:
    """Sum the loss of each piece; return the sums and `most_tokens`, halved if memory ran out."""
    while True:
        try:
            return [loss_of(piece, "sum") for piece in pieces(batch, most_tokens)], most_tokens
        except (RuntimeError, MemoryError) as problem:
            fewer = halved(problem, batch, most_tokens)
            if fewer is None:
                raise
        most_tokens = fewer
        # Out here the exception, and all tensors it holds, are gone.
        backends.of(loss_of.device).give_back()


def sample(
    model: PeftModel,
    adapter: Adapter | None,
    encoder: Encoder,
    prompt: str,
    max_new_tokens: int,
    continue_text: bool = False,
) -> str:
    """Return the model's answer to `prompt`, or what it writes after it: greedy, so repeatable."""
    import torch

    context = context_of(model.get_base_model())
    asked, most = room_to_answer(encoder.prompt_ids(prompt, continue_text), max_new_tokens, context)
    ids = torch.tensor([asked], device=model.device)
    with carrying(model, adapter), torch.inference_mode():
        written = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            generation_config=_greedy(model, encoder, most),
        )
    new = written[0, ids.shape[1] :]
    return str(encoder.tokenizer.decode(new, skip_special_tokens=True)).strip()


def room_to_answer(
    prompt: list[int], max_new_tokens: int, context: int | None
) -> tuple[list[int], int]:
    """Return the prompt's ids and how many may follow, within the tokens that the model reads.

    A prompt that leaves less room loses its beginning, but never more than half of the context.
    """
    if context is None:
        return prompt, max_new_tokens
    room = min(max_new_tokens, max(1, context // 2))
    kept = prompt[-(context - room) :] if context > room else prompt[-1:]
    return kept, min(max_new_tokens, context - len(kept))


def _greedy(model: Any, encoder: Encoder, max_new_tokens: int) -> Any:
    """Take nothing of the model's own sampling settings but its end tokens."""
    from transformers import GenerationConfig

    theirs = getattr(model.generation_config, "eos_token_id", None)
    ends = set(theirs if isinstance(theirs, list) else [theirs]) | {encoder.tokenizer.eos_token_id}
    ends.discard(None)
    pad = encoder.tokenizer.pad_token_id
    return GenerationConfig(
        do_sample=False,
        max_new_tokens=max_new_tokens,
        use_cache=True,
        eos_token_id=sorted(ends) or None,
        pad_token_id=0 if pad is None else pad,
    )


@contextlib.contextmanager
def carrying(model: PeftModel, adapter: Adapter | None) -> Any:
    """Have the model carry an adapter while this is open; None: the base alone."""
    if adapter is None:
        with model.disable_adapter():
            yield
    else:
        swap(model, adapter)
        yield
