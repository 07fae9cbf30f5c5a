"""The plan of how many volunteers train through one base at once, by the memory they take."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from nomoat.lora.memory.prediction import DeviceOverhead, TrainingShape, predict
from nomoat.lora.model.shape import ModelShape


@dataclass(frozen=True, slots=True)
class JointPlan:
    """The size of a group. most_tokens: padded tokens of one pass, all together; None: any.

    needs_bytes: of the device, as predicted; None where nobody has.
    """

    volunteers: int
    most_tokens: int | None = None
    needs_bytes: int | None = None


ONE_AT_A_TIME: Final = JointPlan(1)


def joint_plan(
    model: ModelShape, wish: TrainingShape, most: int, budget_bytes: int, host: DeviceOverhead
) -> JointPlan:
    """The largest group up to `most` that fits `budget_bytes`, each of its passes as high as fits.

    Groups are halved until one fits, and of a group's size first the rows of a pass; nothing is
    computed twice to save memory, which costs more than a smaller group. One volunteer is never
    refused here: it trains as it would have.
    """
    count = most
    while count > 1:
        rows = wish.micro_batch
        while rows:
            together = replace(wish, micro_batch=rows, volunteers=count)
            need = predict(model, together, host).total
            if need <= budget_bytes:
                return JointPlan(count, together.tokens, needs_bytes=need)
            rows //= 2
        count //= 2
    return ONE_AT_A_TIME
