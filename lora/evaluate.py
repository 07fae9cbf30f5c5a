"""How well a model with an adapter predicts given rows, and what it writes."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nomoat.aggregation.adapter import Adapter
from nomoat.aggregation.errors import BadData, NomoatError
from nomoat.lora.adapter_io import swap
from nomoat.lora.batches import by_length
from nomoat.lora.encoding import Encoder, Example
from nomoat.lora.loss import losses_of

if TYPE_CHECKING:
    from peft import PeftModel


@dataclass(frozen=True, slots=True)
class Measured:
    """Mean cross-entropy, nats per learnt token, over that many tokens."""

    loss: float
    tokens: int


def evaluate(
    model: PeftModel, adapter: Adapter | None, examples: Sequence[Example], batch_size: int
) -> Measured:
    """Loss of the adapter, or of the base model alone if None, on `examples`.

    Every token counts the same, wherever it stands. Raises NomoatError if the loss is not finite.
    """
    import torch

    if not examples:
        raise BadData("there is nothing to evaluate on: no row has a trained token")
    total, tokens = [], 0
    model.eval()
    with _carrying(model, adapter), torch.inference_mode(), losses_of(model) as loss_of:
        for batch in by_length(examples, batch_size):
            total.append(loss_of(batch, "sum"))
            tokens += len(batch.targets)
    loss = float(torch.stack(total).double().sum()) / tokens
    if not math.isfinite(loss):
        raise NomoatError("the adapter's loss is not a finite number: its training has diverged")
    return Measured(loss, tokens)


def sample(
    model: PeftModel,
    adapter: Adapter | None,
    encoder: Encoder,
    prompt: str,
    max_new_tokens: int,
    continue_text: bool = False,
) -> str:
    """What the model answers to `prompt` (or writes after it), greedily and so repeatably."""
    import torch

    ids = torch.tensor([encoder.prompt_ids(prompt, continue_text)], device=model.device)
    with _carrying(model, adapter), torch.inference_mode():
        written = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            generation_config=_greedy(model, encoder, max_new_tokens),
        )
    new = written[0, ids.shape[1] :]
    return str(encoder.tokenizer.decode(new, skip_special_tokens=True)).strip()


def _greedy(model: Any, encoder: Encoder, max_new_tokens: int) -> Any:
    """Nothing of the model's own sampling settings but its end tokens."""
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
def _carrying(model: PeftModel, adapter: Adapter | None) -> Any:
    if adapter is None:
        with model.disable_adapter():
            yield
    else:
        swap(model, adapter)
        yield
