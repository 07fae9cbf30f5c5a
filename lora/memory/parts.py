"""The memory of a base that is laid out over several GPUs, or beside main memory: each GPU's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

from nomoat.lora.layout.parts import CardPart
from nomoat.lora.memory.prediction import (
    FP32,
    DeviceOverhead,
    Prediction,
    TrainingShape,
    Weights,
    predict,
)
from nomoat.lora.model.shape import ModelShape


def predict_part(
    model: ModelShape, part: CardPart, training: TrainingShape, host: DeviceOverhead
) -> Prediction:
    """Predict the peak of one GPU that holds `part` of the base.

    The first has the optimiser's values of the whole adapter, and the others their layers' factors
    with a gradient. A quantised base is read by way of the GPUs, the embedding included.
    """
    share = replace(model, layers=part.layers)
    found = predict(share, training, host)
    matrix = model.vocab * model.hidden * training.weights.compute_bytes
    there = int(part.embedding or part.head) if model.tied else part.embedding + part.head
    counted = 1 if model.tied else 2
    weights = found.weights - (counted - there) * matrix
    whole = model.adapter_parameters(training.rank, training.target_modules)
    own = share.adapter_parameters(training.rank, training.target_modules)
    by_way = matrix if training.weights in (Weights.INT8, Weights.NF4) and there < counted else 0
    return replace(
        found,
        weights=weights,
        trained=whole * (2 * FP32 + training.optimizer.value) if part.first else own * 2 * FP32,
        loss=found.loss if part.head else 0,
        loading=weights + by_way,
    )


@dataclass(frozen=True, slots=True)
class LaidOut:
    """A base's parts, and the bytes that are free for each of them."""

    parts: tuple[CardPart, ...]
    free_bytes: tuple[int, ...]

    def predict(
        self, model: ModelShape, training: TrainingShape, host: DeviceOverhead
    ) -> tuple[Prediction, ...]:
        """Predict each GPU's peak."""
        return tuple(predict_part(model, part, training, host) for part in self.parts)

    def fits(self, predicted: Sequence[Prediction]) -> bool:
        """Tell whether every part has the room it needs."""
        return all(p.total <= free for p, free in zip(predicted, self.free_bytes, strict=True))

    def largest(self, predicted: Sequence[Prediction]) -> int:
        """Return the bytes that the fullest GPU takes."""
        return max(one.total for one in predicted)


def together(predicted: Sequence[Prediction]) -> Prediction:
    """Add what several GPUs take, cause by cause."""
    causes = [field.name for field in fields(Prediction)]
    return Prediction(**{name: sum(getattr(one, name) for one in predicted) for name in causes})
