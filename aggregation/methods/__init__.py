"""LoRA aggregation methods, one per file, behind the interface of base.py."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from nomoat.aggregation.errors import UsageError
from nomoat.aggregation.methods.base import Method, PlaintextMethod, SummedMethod
from nomoat.aggregation.methods.fedask import FedAsk
from nomoat.aggregation.methods.fedavg import FedAvg
from nomoat.aggregation.methods.fedex import FedEx
from nomoat.aggregation.methods.fedplora import FedPLora
from nomoat.aggregation.methods.fedrot import FedRot
from nomoat.aggregation.methods.fedsvd import FedSvd
from nomoat.aggregation.methods.ffa import Ffa
from nomoat.aggregation.methods.flexlora import FlexLora
from nomoat.aggregation.methods.flora import Flora
from nomoat.aggregation.methods.rolora import RoLora

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
}


def get(name: str) -> AnyMethod:
    """The method called `name`; UsageError lists those there are."""
    if name not in METHODS:
        raise UsageError(f"there is no method {name!r}; choose one of {', '.join(METHODS)}")
    return METHODS[name]


def require(
    name: str, *, secure: bool = False, mixed_ranks: bool = False, optimizer: bool = False
) -> AnyMethod:
    """get(), refusing what the method cannot do by naming the methods that can.

    secure: under secure aggregation; mixed_ranks: volunteers of several ranks; optimizer: a
    server optimiser with memory (momentum, fedadam, fedyogi).
    """
    method = get(name)
    asked = {"summable": secure, "mixed_ranks": mixed_ranks, "optimizers": optimizer}
    needed = [trait for trait, wanted in asked.items() if wanted]
    missing = [_SAID[trait] for trait in needed if not getattr(method.traits, trait)]
    if not missing:
        return method
    able = [m.name for m in _ALL if all(getattr(m.traits, trait) for trait in needed)]
    raise UsageError(f"{name} cannot do {' and '.join(missing)}; {', '.join(able)} can")


__all__ = ["METHODS", "AnyMethod", "Method", "PlaintextMethod", "SummedMethod", "get", "require"]
