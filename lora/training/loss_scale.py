"""Loss scaling for devices that compute in float16 (Micikevicius et al. 2018, arXiv:1710.03740).

Gradients below 6·10⁻⁸ are zero in float16. The loss is multiplied by a power of two before the
backward pass and the float32 gradient of the adapter divided by it afterwards, which is exact.
Where a gradient overflows, the step is begun anew at half the scale: of a few local steps none is
lost, as one would be with torch.amp.GradScaler. Wider types have the scale 1, and nothing happens.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


class LossScale:
    """The factor of one run's loss. It is halved where it was too large, and never grows."""

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def unscale(self, gradient: torch.Tensor, loss: torch.Tensor) -> bool:
        """Divide a step's whole gradient by the factor, or halve the factor and return False.

        A gradient that is not finite at factor 1, or of a loss that is not, is left as it is: the
        run has diverged, and no factor helps.
        """
        if self.factor == 1.0:
            return True
        if not math.isfinite(float(gradient.abs().max())) and math.isfinite(float(loss)):
            self.factor /= 2
            return False
        gradient.div_(self.factor)
        return True
