"""The learning rate of a model for which nobody has named one: smaller for wider models.

    rate = min(5e-3, 1.2e-3 · (1000 / hidden size)^0.9)

The exponent is of the order published for LoRA over model widths; the factor was fixed by a small
sweep (docs/experiments.md): the best of a few rates was 8e-3 at widths 64 and 128, 3e-3 at 576.
Above those widths nothing was measured here; 4096 gets 3.4e-4, which is what people use.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

MOST: Final = 5e-3  # longer runs than the sweep's want less than its best
AT_1000: Final = 1.2e-3
EXPONENT: Final = 0.9
WIDTHS: Final = ("hidden_size", "n_embd", "d_model", "dim")  # as configurations call it


@dataclass(frozen=True, slots=True)
class ChosenRate:
    """A learning rate, and why it is this one."""

    rate: float
    reason: str


def usual_rate(config: dict[str, Any]) -> ChosenRate:
    """The rate for a model of this configuration; two digits, so that it can be said."""
    text: Any = config.get("text_config")
    found = {**config, **text} if isinstance(text, dict) else config
    widths = (found.get(name) for name in WIDTHS)
    width = next((w for w in widths if type(w) is int and w > 0), None)
    if width is None:
        return ChosenRate(1e-3, "the model's configuration names no hidden size")
    rate = min(MOST, AT_1000 * (1000 / width) ** EXPONENT)
    return ChosenRate(float(f"{rate:.1e}"), f"usual for a hidden size of {width}")
