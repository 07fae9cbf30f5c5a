"""Finds out on a short text what an adapter can do on a model: a forward and a backward pass.

Names do not tell: a vision tower's layers are called as a language model's, a router is a linear
layer that returns two tensors, a state-space model multiplies with a layer's weight and never calls
the layer. So the model reads a sentence, and what happens in it counts: which layers see all of it,
which of them an adapter's gradient reaches, and whether a later token moves an earlier prediction.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nomoat.aggregation.errors import BadData, NomoatError
from nomoat.aggregation.protocol.adapter import LORA_B, AdapterSpec
from nomoat.lora.device import backends
from nomoat.lora.model.adapter_slot import attach, detach, slot
from nomoat.lora.model.adapter_spec import skeleton_of
from nomoat.lora.model.base_model import BaseModel
from nomoat.lora.model.context import context_of
from nomoat.lora.model.left_out import LeftOut, grouped
from nomoat.lora.model.targets import (
    PREFIX,
    LoraShape,
    Settled,
    linear_modules,
    one_sentence,
    settle,
)

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from torch import nn

TEXT = "The harbour master counts nineteen boats, two of them red, and writes: all is well (6:40)."
TOKENS = 23  # of it that the model reads; a prime: some families read whole chunks only
LEAK = (
    1e-6  # of the gradient, in later tokens: rounding; a model that looks ahead has 1e-3 and more
)
UNSEEN = "text never passes through it"
PARTLY = "only some tokens pass through it"
ODD = "it is not used as a linear layer"
STILL = "no gradient reaches it"


@dataclass(frozen=True, slots=True)
class Examined:
    """The adapter that can be trained on a model, the layers left out, the longest row it reads."""

    spec: AdapterSpec
    left_out: tuple[LeftOut, ...]
    context: int | None


def examine(base: BaseModel, shape: LoraShape) -> Examined:
    """Find the layers of `shape` that an adapter moves on text, by attaching one and taking a step.

    The model is left as it was. Raises BadData if the model reads later tokens (it is not causal)
    or computes no finite numbers, UsageError if a target that was asked for cannot be trained.
    """
    context = context_of(base.model)
    ids = _text(base, min(TOKENS, context or TOKENS))
    unusable = _watched(base, ids)
    skeleton = skeleton_of(base.model.config)
    while True:
        settled = settle(skeleton, shape, unusable)
        still = _tried(base, settled.spec, ids)
        if not still:
            return Examined(settled.spec, _left_out(base, settled), context)
        unusable |= dict.fromkeys(still, STILL)


def _text(base: BaseModel, most: int) -> torch.Tensor:
    """The first tokens of TEXT (1, n); of whatever there is if the tokenizer makes none of it."""
    import torch

    ids = base.tokenizer(TEXT, add_special_tokens=False)["input_ids"][:most]
    if len(ids) < 4:
        table: Any = base.model.get_input_embeddings()
        rows = table.num_embeddings
        ids = [(7 * place + 3) % rows for place in range(most)]
    return torch.tensor([ids], device=base.device)


def _watched(base: BaseModel, ids: torch.Tensor) -> dict[str, str]:
    """The linear layers that cannot carry an adapter, seen from the outside: whole name → why."""
    import torch

    model = base.model
    wanted = linear_modules(model)
    modules = {name: module for name, module in model.named_modules() if name in wanted}
    widths = {name: _outputs(module) for name, module in modules.items()}
    rows: dict[str, int] = dict.fromkeys(modules, 0)
    odd = set[str]()

    def watch(name: str) -> Any:
        def hook(_module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            x = inputs[0] if inputs else None
            if (
                not isinstance(x, torch.Tensor)
                or not isinstance(output, torch.Tensor)
                or (*x.shape[:-1], widths[name]) != tuple(output.shape)
            ):
                odd.add(name)
            else:
                rows[name] += x.numel() // x.shape[-1]

        return hook

    hooks = [module.register_forward_hook(watch(name)) for name, module in modules.items()]
    try:
        with torch.no_grad(), _in_one_line(base, "read text"):
            _logits(base, model, ids)
    finally:
        for hook in hooks:
            hook.remove()
    found = {name: UNSEEN for name in modules if rows[name] == 0}
    found |= _experts({name for name, seen in rows.items() if 0 < seen < ids.numel()}, modules)
    return found | dict.fromkeys(odd, ODD)


def _outputs(module: Any) -> int:
    """Width of what a linear layer, or GPT-2's transposed one, gives."""
    return int(getattr(module, "out_features", None) or module.nf)


def _experts(partly: set[str], names: Any) -> dict[str, str]:
    """All layers of a kind of which some see only some tokens: which do is the text's doing."""
    kinds = {_kind(name) for name in partly}
    return {name: PARTLY for name in names if _kind(name) in kinds}


def _kind(name: str) -> str:
    return ".".join("*" if part.isdecimal() else part for part in name.split("."))


def _tried(base: BaseModel, spec: AdapterSpec, ids: torch.Tensor) -> tuple[str, ...]:
    model = attach(base, spec)
    try:
        return _still(base, model, spec, ids)
    finally:
        detach(model)
        base.model.requires_grad_(False)


def _still(
    base: BaseModel, model: PeftModel, spec: AdapterSpec, ids: torch.Tensor
) -> tuple[str, ...]:
    """Layers whose B has no gradient from the first half's predictions; BadData if later tokens
    move them.
    """
    from torch.nn import functional

    parameters = slot(model, spec)
    half = max(2, ids.shape[1] // 2)
    trained = [parameter.requires_grad for parameter in parameters.values()]
    for parameter in parameters.values():
        parameter.requires_grad_(True)
        parameter.grad = None
    with (
        _embedded(base) as tables,
        _in_one_line(base, "be trained with an adapter"),
        _training(model),
    ):
        logits = _logits(base, model, ids)[:, :half].float()
        loss = functional.cross_entropy(logits.flatten(0, 1), ids[0, 1 : half + 1])
        if not bool(loss.isfinite()):
            raise BadData(f"{base.name} computes no finite numbers: its weights are damaged")
        (loss * backends.of(base.device).loss_scale).backward()
    try:
        _check_causal(base, tables, half)
        return tuple(
            name.removesuffix(LORA_B).removeprefix(PREFIX)
            for name, parameter in parameters.items()
            if name.endswith(LORA_B) and (parameter.grad is None or not parameter.grad.any())
        )
    finally:
        for parameter, wanted in zip(parameters.values(), trained, strict=True):
            parameter.grad = None
            parameter.requires_grad_(wanted)


@contextlib.contextmanager
def _embedded(base: BaseModel) -> Iterator[list[torch.Tensor]]:
    """Collect what the table of tokens gives, as leaves that get a gradient."""
    kept: list[torch.Tensor] = []

    def keep(_module: nn.Module, _inputs: Any, output: torch.Tensor) -> torch.Tensor:
        kept.append(output.detach().requires_grad_())
        return kept[-1].clone()  # some families scale it in place

    hook = base.model.get_input_embeddings().register_forward_hook(keep)
    try:
        yield kept
    finally:
        hook.remove()


@contextlib.contextmanager
def _training(model: PeftModel) -> Iterator[None]:
    """Have the model compute as in training, where some families go another way; then as before."""
    import torch

    drawing = [model.device] if model.device.type == "cuda" else []
    with torch.random.fork_rng(drawing):
        model.train()
        try:
            yield
        finally:
            model.eval()


@contextlib.contextmanager
def _in_one_line(base: BaseModel, what: str) -> Iterator[None]:
    """Whatever a family's code raises becomes BadData; too little memory stays what it is."""
    try:
        yield
    except (NomoatError, MemoryError):
        raise
    except Exception as problem:
        if "memory" in str(problem).lower() or "CUDA" in str(problem):
            raise
        why = one_sentence(problem)
        raise BadData(f"{base.name} ({_family(base)}) cannot {what}: {why}") from problem


def _family(base: BaseModel) -> str:
    return str(getattr(base.model.config, "model_type", "?"))


def _check_causal(base: BaseModel, tables: list[torch.Tensor], half: int) -> None:
    """BadData if the loss of the first `half` positions depends on a token behind them."""
    for table in tables:
        if table.grad is None:
            continue
        size = table.grad.flatten(0, -2).abs().amax(dim=1)  # of each token
        if float(size[half:].max()) > LEAK * float(size[:half].max()):
            raise BadData(
                f"{base.name} ({_family(base)}) is not a causal language model: what it says of a "
                "token depends on later ones, so it cannot be trained to write"
            )


def _logits(base: BaseModel, model: Any, ids: torch.Tensor) -> torch.Tensor:
    with backends.of(base.device).autocast():
        logits: torch.Tensor = model(input_ids=ids, use_cache=False).logits
    return logits


def _left_out(base: BaseModel, settled: Settled) -> tuple[LeftOut, ...]:
    adapted = {layer.name.removeprefix(PREFIX) for layer in settled.spec.layers}
    return grouped(base.model, adapted, settled.left_out)
