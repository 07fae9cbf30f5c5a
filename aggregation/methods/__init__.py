"""LoRA aggregation methods, one per file, behind the interface of base.py."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from nomoat.aggregation.errors import UsageError
from nomoat.aggregation.methods.base import Method, PlaintextMethod, SummedMethod
from nomoat.aggregation.methods.plaintext.fedex import FedEx
from nomoat.aggregation.methods.plaintext.flexlora import FlexLora
from nomoat.aggregation.methods.plaintext.flora import Flora
from nomoat.aggregation.methods.summed.fedask import FedAsk
from nomoat.aggregation.methods.summed.fedavg import FedAvg
from nomoat.aggregation.methods.summed.fedplora import FedPLora
from nomoat.aggregation.methods.summed.fedrot import FedRot
from nomoat.aggregation.methods.summed.fedsvd import FedSvd
from nomoat.aggregation.methods.summed.ffa import Ffa
from nomoat.aggregation.methods.summed.local_b import LocalB
from nomoat.aggregation.methods.summed.rolora import RoLora

AnyMethod = SummedMethod | PlaintextMethod

_ALL: tuple[AnyMethod, ...] = (
    FedAvg(),
    Ffa(),
    RoLora(),
    FedSvd(),
    FedRot(),
    FedPLora(),
    FedAsk(),
    Flora(),
    FlexLora(),
    FedEx(),
)
METHODS: Mapping[str, AnyMethod] = MappingProxyType({method.name: method for method in _ALL})

_SAID = {
    "summable": "secure aggregation",
    "mixed_ranks": "mixed ranks",
    "optimizers": "a server optimiser with memory",
    "steady": "optimiser state kept across rounds",
}
_BESIDE: Mapping[str, AnyMethod] = {LocalB.name: LocalB()}  # chosen by `personal`, not by name


def get(name: str) -> AnyMethod:
    """The method called `name`; UsageError lists those there are."""
    if name in _BESIDE:
        return _BESIDE[name]
    if name not in METHODS:
        raise UsageError(f"there is no method {name!r}; choose one of {', '.join(METHODS)}")
    return METHODS[name]


def require(
    name: str,
    *,
    secure: bool = False,
    mixed_ranks: bool = False,
    optimizer: bool = False,
    steady: bool = False,
) -> AnyMethod:
    """get(), refusing what the method cannot do by naming the methods that can.

    secure: under secure aggregation; mixed_ranks: volunteers of several ranks; optimizer: a
    server optimiser with memory (momentum, fedadam, fedyogi); steady: AdamW moments kept.
    """
    if name not in METHODS:
        raise UsageError(f"there is no method {name!r}; choose one of {', '.join(METHODS)}")
    method = METHODS[name]
    asked = {
        "summable": secure,
        "mixed_ranks": mixed_ranks,
        "optimizers": optimizer,
        "steady": steady,
    }
    needed = {trait: True for trait, wanted in asked.items() if wanted}
    missing = [_SAID[trait] for trait in needed if not getattr(method.traits, trait)]
    if not missing:
        return method
    can = ", ".join(able(**needed)) or "no method"
    raise UsageError(f"{name} cannot do {' and '.join(missing)}; {can} can")


def able(**traits: object) -> tuple[str, ...]:
    """Names of the methods that have all of these traits."""
    return tuple(
        method.name
        for method in _ALL
        if all(getattr(method.traits, trait) == wanted for trait, wanted in traits.items())
    )


__all__ = [
    "METHODS",
    "AnyMethod",
    "Method",
    "PlaintextMethod",
    "SummedMethod",
    "able",
    "get",
    "require",
]
