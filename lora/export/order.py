"""An order for an export, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from nomoat.lora.export.model_card import CardFacts

if TYPE_CHECKING:
    from nomoat.aggregation.protocol.adapter import Adapter


class ExportTarget(StrEnum):
    """Programs an adapter is taken to."""

    PEFT = "peft"
    MERGED = "merged"
    GGUF = "gguf"
    PHONE = "phone"
    OLLAMA = "ollama"
    VLLM = "vllm"
    MLX = "mlx"
    HUB = "hub"


@dataclass(frozen=True)
class Order:
    """An export to be written. name: of the result, such as readers-community-12.

    base: the model's folder; base_name: what people call it, a hub id where it has one.
    text: the card without its front matter. quant: of GGUF files, "" for the target's usual one.
    check: compare the result with what was measured before it is called done.
    """

    target: ExportTarget
    out: Path
    name: str
    base: Path
    base_name: str
    base_hash: bytes
    adapter: Adapter
    facts: CardFacts
    text: str
    quant: str = ""
    check: bool = True


@dataclass(frozen=True, slots=True)
class Exported:
    """A finished export. checked: what the comparison found, in words; then: the next command."""

    files: tuple[Path, ...]
    checked: str
    then: str
