"""The layers that carry an adapter: those on which PEFT really puts one.

PEFT matches names by their ends, refuses some layers of some families, and turns names into others
(a mixture of experts loses every `gate_proj`, dense ones included). So nothing is concluded from a
list of names: an adapter is attached to a model without weights, read back, and what did not get
one is left out, with the reason.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

from nomoat.aggregation.errors import UsageError
from nomoat.aggregation.protocol.adapter import LORA_A, LORA_B, AdapterSpec, LayerSpec

if TYPE_CHECKING:
    from peft import LoraConfig, PeftModel
    from torch import nn
    from transformers import PreTrainedModel

Targets: TypeAlias = tuple[str, ...] | Literal["all-linear"]

PREFIX = "base_model.model."  # of a layer's name in PEFT's state
BY_PEFT = "PEFT puts no adapter on it"
REFUSALS = (ValueError, TypeError, AttributeError, NotImplementedError)  # that PEFT raises


@dataclass(frozen=True, slots=True)
class LoraShape:
    """Rank r, α and the targets that were asked for; scale α/r, or α/√r with `rslora`."""

    rank: int
    alpha: float
    target_modules: Targets = "all-linear"
    rslora: bool = False


@dataclass(frozen=True, slots=True)
class Settled:
    """The adapter that PEFT attaches, and the linear layers without one: whole name → why."""

    spec: AdapterSpec
    left_out: Mapping[str, str] = field(default_factory=dict)


def lora_config(rank: int, alpha: float, targets: tuple[str, ...], rslora: bool) -> LoraConfig:
    """Return PEFT's configuration of this project's adapters: plain LoRA, no dropout, no bias."""
    from peft import LoraConfig

    return LoraConfig(
        r=rank,
        lora_alpha=alpha,  # type: ignore[arg-type]  # peft says int and computes with any number
        target_modules=list(targets),
        use_rslora=rslora,
        lora_dropout=0.0,
        bias="none",
        task_type="CAUSAL_LM",
    )


def settle(
    skeleton: PreTrainedModel, shape: LoraShape, unusable: Mapping[str, str] | None = None
) -> Settled:
    """Find the layers of `shape` by attaching; `unusable`: known not to work, whole name → why.

    skeleton: the model without weights, left as it was. Raises UsageError if a target is none of
    its linear layers, or if nothing is left to adapt.
    """
    known = unusable or {}
    asked = _asked(skeleton, shape.target_modules)
    left_out = {name: known[name] for name in sorted(asked & known.keys())}
    wanted = asked - known.keys()
    names = [name for name, _ in skeleton.named_modules()]
    while wanted:
        targets = selectors(wanted, names)
        found = _attached(skeleton, shape, targets)
        if isinstance(found, str):
            layers: tuple[LayerSpec, ...] = ()
            lost = _refused_alone(skeleton, shape, wanted, names) or dict.fromkeys(wanted, found)
        else:
            layers = found
            having = {layer.name.removeprefix(PREFIX) for layer in layers}
            lost = dict.fromkeys(wanted - having, BY_PEFT)
        if not lost:
            _check_each_has_one(shape, wanted, left_out)
            spec = AdapterSpec(layers, shape.rank, float(shape.alpha), shape.rslora, targets)
            return Settled(spec, left_out)
        left_out |= lost
        wanted -= lost.keys()
    raise UsageError(f"no layer of this model can carry an adapter: {_first(left_out)}")


def linear_modules(model: PreTrainedModel) -> frozenset[str]:
    """Return the whole names of the linear layers that may carry an adapter, never the head.

    Converters to other formats reject adapters on head and embedding.
    """
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    head = model.get_output_embeddings()
    return frozenset(
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and module is not head
    )


def selectors(wanted: Iterable[str], names: Iterable[str]) -> tuple[str, ...]:
    """Return the shortest ends of names that select `wanted`, and nothing else, among `names`.

    PEFT takes a target for every module whose name is it or ends with a dot and it.
    """
    chosen = set(wanted)
    foreign = {end for name in names if name not in chosen for end in _ends(name)}
    found = {next((end for end in _ends(name) if end not in foreign), name) for name in chosen}
    return tuple(sorted(found))


def attached_layers(model: nn.Module, rank: int) -> tuple[LayerSpec, ...]:
    """Return the layers of the adapter that `model` carries; a shared parameter counts once.

    Raises UsageError for a factor that is not a matrix of this rank: no plain LoRA.
    """
    pairs = _factors(model)
    for name, (a, b) in pairs.items():
        if len(a) != 2 or len(b) != 2 or a[0] != rank or b[1] != rank:
            raise UsageError(f"{name} gets more than two factors of rank {rank}")
    return tuple(LayerSpec(name, b[0], a[1], rank) for name, (a, b) in sorted(pairs.items()))


def put_adapter(
    model: PreTrainedModel, shape: LoraShape, targets: tuple[str, ...], name: str
) -> PeftModel:
    """Attach an adapter with PEFT; the model is as before if that raises, whatever it is."""
    from peft import get_peft_model

    config = lora_config(shape.rank, shape.alpha, targets, shape.rslora)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fan_in_fan_out is set right by itself
        try:
            return get_peft_model(model, config, adapter_name=name)
        except BaseException:
            strip(model)
            raise


def strip(model: PreTrainedModel) -> None:
    """Take out what an attach that failed half-way has put in: later adapters must not meet it.

    A coordinator chooses the targets; one bad choice would otherwise stay until a restart.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, BaseTunerLayer):
                setattr(parent, name, child.get_base_layer())
    model.requires_grad_(False)


def _asked(model: PreTrainedModel, targets: Targets) -> frozenset[str]:
    """Whole names of the linear layers that `targets` select."""
    known = linear_modules(model)
    if targets in ("all-linear", ("all-linear",)):
        return known
    if isinstance(targets, str):
        targets = (targets,)
    asked = set[str]()
    for target in targets:
        fitting = {name for name in known if target in (name, *_ends(name))}
        if not fitting:
            there = ", ".join(sorted({name.rpartition(".")[2] for name in known})[:40])
            raise UsageError(
                f"the model has no target module {target!r}; its linear layers are {there}"
            )
        asked |= fitting
    return frozenset(asked)


def _attached(
    skeleton: PreTrainedModel, shape: LoraShape, targets: tuple[str, ...]
) -> tuple[LayerSpec, ...] | str:
    """The linear layers that get an adapter, or why PEFT attaches none; the model is as before."""
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    try:
        model = put_adapter(skeleton, shape, targets, "default")
    except REFUSALS as problem:
        return one_sentence(problem)
    linear = (nn.Linear, Conv1D)
    plain = {name for name, module in model.named_modules() if isinstance(module, linear)}
    pairs = _factors(model)
    model.unload()
    return tuple(
        LayerSpec(name, b[0], a[1], shape.rank)
        for name, (a, b) in sorted(pairs.items())
        if f"{name}.base_layer" in plain  # and not an expert's tensors, in place of what was named
    )


def _factors(model: nn.Module) -> dict[str, tuple[tuple[int, ...], tuple[int, ...]]]:
    """Shapes of A and B of each adapted layer, by its name in PEFT's state."""
    place = ".default."
    shapes = {
        full.replace(place, "."): tuple(parameter.shape)
        for full, parameter in model.named_parameters()
        if ".lora_" in full and place in full
    }
    layers = {name.rpartition(".lora_")[0] for name in shapes}
    return {name: (shapes.get(name + LORA_A, ()), shapes.get(name + LORA_B, ())) for name in layers}


def _refused_alone(
    skeleton: PreTrainedModel, shape: LoraShape, wanted: Iterable[str], names: Iterable[str]
) -> dict[str, str]:
    """Layers of the kinds that PEFT refuses even by themselves: whole name → why."""
    kinds: dict[str, set[str]] = {}
    for name in wanted:
        kinds.setdefault(name.rpartition(".")[2], set()).add(name)
    found: dict[str, str] = {}
    for kind in kinds.values():
        refused = _attached(skeleton, shape, selectors(kind, names))
        if isinstance(refused, str):
            found |= dict.fromkeys(kind, refused)
    return found


def _check_each_has_one(
    shape: LoraShape, wanted: Iterable[str], left_out: Mapping[str, str]
) -> None:
    """UsageError if a target that was asked for by name has no layer left."""
    if shape.target_modules in ("all-linear", ("all-linear",)):
        return
    for target in shape.target_modules:
        if not any(target in (name, *_ends(name)) for name in wanted):
            lost = {n: why for n, why in left_out.items() if target in (n, *_ends(n))}
            raise UsageError(f"target module {target!r} cannot be trained: {_first(lost)}")


def one_sentence(problem: BaseException) -> str:
    """Return a library's error as one sentence of at most 160 characters, its prefix left out."""
    text = " ".join(str(problem).split()) or type(problem).__name__
    if text.startswith("["):
        text = text.partition("] ")[2] or text
    first = text.partition(". ")[0]
    return first if len(first) <= 160 else first[:159].rpartition(" ")[0] + " …"


def _first(left_out: Mapping[str, str]) -> str:
    name, why = min(left_out.items(), default=("it", "it has no linear layers"))
    return f"{name}: {why}" if left_out else why


def _ends(name: str) -> list[str]:
    """The last part of a dotted name, the last two, …, all of it."""
    parts = name.split(".")
    return [".".join(parts[at:]) for at in range(len(parts) - 1, -1, -1)]
