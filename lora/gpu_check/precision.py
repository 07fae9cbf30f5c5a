"""Rows on numbers: a step on the GPU in each type against float32 on a processor."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

from nomoat.lora.device import backends
from nomoat.lora.gpu_check.row import CheckPlace, GpuRow, expect
from nomoat.lora.gpu_check.sample_task import ALPHA, RANK, apart, examples_for, step_gradient

if TYPE_CHECKING:
    from nomoat.lora.model.base_model import BaseModel

# Largest relative differences of the loss and of the gradient.
WITHIN: Final = {
    "bfloat16": (0.01, 0.06),
    "float16": (0.005, 0.03),
    "8 bits": (0.03, 0.25),
    "4 bits": (0.01, 0.08),
}


def same_step(name: str, bits: int | None, dtype: str, place: CheckPlace) -> str:
    """Compare one step; with 4 bits against a base of the very weights that they stand for."""
    from nomoat.lora.model.adapter_spec import new_spec
    from nomoat.lora.model.base_model import load

    if dtype == "float16":
        _before_ampere()
    there = load(place.model, place.device, dtype, bits)
    here = load(place.model, "cpu")
    spec = new_spec(place.model, RANK, ALPHA)
    if bits == 4:
        _unpack(there, here)
    examples = examples_for(here.tokenizer)[:6]
    loss, gradient = step_gradient(there, spec, examples)
    wanted_loss, wanted = step_gradient(here, spec, examples)
    seen = (abs(loss / wanted_loss - 1), apart(gradient, wanted))
    text = f"loss {loss:.4f} and {wanted_loss:.4f}, gradient {seen[1]:.2%} apart"
    return expect(all(s <= w for s, w in zip(seen, WITHIN[name], strict=True)), text)


def same_with_checkpointing(place: CheckPlace) -> str:
    """Compare a step whose activations are computed again with one that keeps them."""
    from nomoat.lora.model.adapter_spec import new_spec
    from nomoat.lora.model.base_model import load

    base = load(place.model, place.device)
    spec = new_spec(place.model, RANK, ALPHA)
    examples = examples_for(base.tokenizer)[:6]
    loss, wanted = step_gradient(base, spec, examples)
    model: Any = base.model
    model.gradient_checkpointing_enable({"use_reentrant": False})
    again, gradient = step_gradient(base, spec, examples)
    difference = apart(gradient, wanted)
    text = f"loss {loss:.4f} and {again:.4f}, gradient {difference:.2%} apart"
    return expect(abs(again / loss - 1) < 1e-3 and difference < 0.01, text)


def same_laid_out(bits: int | None, place: CheckPlace) -> str:
    """Compare a step of a base whose embedding stays in main memory with one held on the GPU."""
    from nomoat.lora.layout.parts import Layout
    from nomoat.lora.model.adapter_spec import new_spec
    from nomoat.lora.model.base_model import load

    spec, found = new_spec(place.model, RANK, ALPHA), []
    for layout in (Layout(), Layout(embedding_in_ram=True)):
        base = load(place.model, place.device, bits=bits, layout=layout)
        found.append(step_gradient(base, spec, examples_for(base.tokenizer)[:6]))
    (wanted_loss, wanted), (loss, gradient) = found
    difference = apart(gradient, wanted)
    text = f"loss {loss:.4f} and {wanted_loss:.4f}, gradient {difference:.2%} apart"
    return expect(abs(loss / wanted_loss - 1) < 0.01 and difference < 0.05, text)


def _before_ampere() -> None:
    """Have this process take its card for one without bfloat16."""

    class Turing(backends.Cuda):
        """Computes in float16, its loss scaled."""

        def dtype(self) -> Any:
            import torch

            return torch.float16

    backends.KINDS["cuda"] = Turing


def _unpack(packed: BaseModel, into: BaseModel) -> None:
    """Give `into` the weights that those of `packed` stand for."""
    import bitsandbytes as bnb
    import torch

    plain = dict(into.model.named_modules())
    with torch.no_grad():
        for name, module in packed.model.named_modules():
            if isinstance(module, bnb.nn.Linear4bit):
                weight: Any = module.weight
                whole = bnb.functional.dequantize_4bit(weight.data, weight.quant_state)
                target: Any = plain[name]
                target.weight.copy_(whole.float().cpu())


def rows_of_precision() -> list[GpuRow]:
    """All of them."""
    ways: list[tuple[str, int | None, str]] = [
        ("bfloat16", None, "auto"),
        ("float16", None, "float16"),
        ("8 bits", 8, "auto"),
        ("4 bits", 4, "auto"),
    ]
    found = []
    for name, bits, dtype in ways:
        loss, gradient = WITHIN[name]
        expected = f"loss within {loss:.1%}, gradient within {gradient:.1%} of a processor's"
        program = partial(same_step, name, bits, dtype)
        found.append(GpuRow(f"a step in {name}", expected, 100, program))
    again = "the same loss and gradient as with activations kept"
    found.append(GpuRow("gradient checkpointing", again, 90, same_with_checkpointing))
    whole = "loss within 1 %, gradient within 5 % of a base on the GPU"
    beside = partial(same_laid_out, 4)
    found.append(GpuRow("embedding in main memory", whole, 100, beside))
    return found
