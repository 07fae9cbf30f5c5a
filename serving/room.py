"""The room that a base takes on a processor, known before it is loaded."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Final

from nomoat.aggregation.errors import DoesNotFit
from nomoat.lora.export.weights import BaseWeights

BYTES: Final = {"float32": 4.0, "f32": 4.0, "f16": 2.0, "q8_0": 34 / 32, "q4_0": 18 / 32}
GB: Final = 1e9


def check_room(folder: Path, stored: str, free: int) -> None:
    """Raise DoesNotFit if a base cannot be held in `free` bytes; what would fit is named.

    stored: "float32" for the peft engine, or the gguf engine's --quant. Weights alone are counted:
    what is refused here would have been killed, or have brought the machine to a stand.
    """
    values = sum(math.prod(shape) for shape in BaseWeights.open(folder).shapes().values())
    need = values * BYTES[stored]
    if need <= free:
        return
    smaller = [kind for kind in ("q8_0", "q4_0") if values * BYTES[kind] < min(free, need)]
    advice = f"; --engine gguf --quant {smaller[0]} would fit" if smaller else ""
    raise DoesNotFit(
        f"the model in {folder} takes {need / GB:.1f} GB in {stored}, and {free / GB:.1f} GB of "
        f"memory are free{advice}"
    )
