"""Cards that are not there: places of a processor that tensors may not meet from, as on GPUs.

A copy to `cpu:1` is a real copy to torch, whose gradient finds its way back; this mode remembers
which place every storage was copied to, and refuses what torch refuses on GPUs: an operation on
tensors of two of them. Backward passes are not watched: there torch itself brings gradients home.
"""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

MOVES = (torch.ops.aten._to_copy, torch.ops.aten.to)  # the latter where nothing is differentiated


class Cards(TorchDispatchMode):
    """While it is open, `cpu:N` is a card of its own. moves: copies from one card to another."""

    def __init__(self) -> None:
        super().__init__()
        self._where: dict[int, int] = {}
        self.moves: list[tuple[int, int]] = []

    def card(self, tensor: torch.Tensor) -> int | None:
        """Return the card that a tensor was copied to, None if to none."""
        return self._where.get(_key(tensor))

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        given = [x for x in tree_iter((args, kwargs)) if isinstance(x, torch.Tensor)]
        cards = {c for x in given if x.dim() and (c := self.card(x)) is not None}
        forward = torch._C._current_graph_task_id() == -1
        moves, copies = function.overloadpacket in MOVES, function is torch.ops.aten.copy_.default
        if len(cards) > 1 and forward and not moves and not copies:
            found = f"but found {sorted(cards)}: {function}"
            raise RuntimeError(f"Expected all tensors to be on the same device, {found}")
        result = function(*args, **kwargs)
        places = [x for x in (*args, *kwargs.values()) if isinstance(x, torch.device)]
        to = places[0].index if moves and places else None
        if to is not None:
            self.moves += [(card, to) for card in cards if card != to]
        known = {_key(tensor) for tensor in given}
        for made in tree_iter(result):
            if isinstance(made, torch.Tensor) and _key(made) not in known:
                self._note(made, to if to is not None else min(cards, default=None))
        return result

    def _note(self, tensor: torch.Tensor, card: int | None) -> None:
        self._where.pop(_key(tensor), None)
        if card is not None:
            self._where[_key(tensor)] = card
            weakref.finalize(tensor.untyped_storage(), self._where.pop, _key(tensor), None)


def _key(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage()._cdata
