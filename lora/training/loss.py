"""The model's loss on trained tokens only: no logits are computed for any other position.

A vocabulary of 2 000 to 150 000 makes the last layer the dearest; prompts and padding need none
of it. The head's input is thinned by a hook in front of the head, so that whatever a model does
to its logits afterwards (scaling, soft caps) still happens.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from nomoat.lora.data.batches import Batch
from nomoat.lora.device import backends
from nomoat.lora.layout.placing import home_of

if TYPE_CHECKING:
    import torch
    from peft import PeftModel


class Losses:
    """Computes cross-entropies of one model; use inside `losses_of`."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self.device = home_of(model)
        self._autocast = backends.of(self.device).autocast
        self._places: torch.Tensor | None = None

    def __call__(self, batch: Batch, reduction: str) -> torch.Tensor:
        """Return the cross-entropy, nats, of the trained tokens: their "mean", "sum" or "none"."""
        ids, mask, places, targets = self._on_device(batch)
        return self.computed(ids, mask, places, targets, reduction)

    def log_probabilities(self, batch: Batch) -> torch.Tensor:
        """Return those of every token at each of the batch's trained positions, (k, V)."""
        ids, mask, places, _ = self._on_device(batch)
        self._places = places
        with self._autocast():
            logits = self._model(input_ids=ids, attention_mask=mask, use_cache=False).logits
        found: torch.Tensor = logits.view(len(places), -1).float().log_softmax(1)
        return found

    def _on_device(
        self, batch: Batch
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor, torch.Tensor]:
        import torch

        places, targets, ids = (
            torch.from_numpy(values).to(self.device, non_blocking=True)
            for values in (batch.places, batch.targets, batch.input_ids)
        )
        mask: torch.Tensor | None = None
        if batch.mask is not None:
            mask = torch.from_numpy(batch.mask.astype(np.int64))
            mask = mask.to(self.device, non_blocking=True)
        return ids, mask, places, targets

    def computed(
        self,
        ids: torch.Tensor,
        mask: torch.Tensor | None,
        places: torch.Tensor,
        targets: torch.Tensor,
        reduction: str,
    ) -> torch.Tensor:
        """Return the same from tensors on the device; targets of −100 are passed over."""
        from torch.nn import functional

        self._places = places
        with self._autocast():
            logits = self._model(input_ids=ids, attention_mask=mask, use_cache=False).logits
        loss = functional.cross_entropy(
            logits.view(len(targets), -1).float(), targets.to(logits.device), reduction=reduction
        )
        return loss.to(self.device)

    def thin(self, _head: Any, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        """Keep the hidden states that predict a trained token: (n, longest, h) → (1, k, h)."""
        assert self._places is not None
        hidden, *rest = inputs
        chosen = hidden.flatten(0, 1).index_select(0, self._places.to(hidden.device))
        return (chosen.unsqueeze(0), *rest)


@contextlib.contextmanager
def losses_of(model: PeftModel) -> Iterator[Losses]:
    """Have the head of `model` compute trained positions only while this is open."""
    losses = Losses(model)
    inner: Any = model.get_base_model()
    head = inner.get_output_embeddings()
    handle = head.register_forward_pre_hook(losses.thin, prepend=True)  # before they are moved
    try:
        yield losses
    finally:
        handle.remove()
