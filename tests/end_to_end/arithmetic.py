"""`nomoat` of a member that trains and measures by arithmetic: python arithmetic.py COMMAND…

For tests that are not about models: a worker with torch in it takes several seconds of a core to
start. Everything else is the product's: the update is masked, sketched, signed, sent as any other.
"""

from __future__ import annotations

import threading

import numpy as np

from nomoat.client.round.work import EvaluateWork, TrainWork
from nomoat.client.training.trainer import Trainer
from nomoat.lora.training.train import Trained

TRAINING_S = 1.0  # so that a round can be seen, and interrupted, while it trains
NORM = 0.02  # of the update, in all values alike


def by_arithmetic() -> None:
    """Have every trainer of this process add a constant, and measure the same for all."""

    def train(self: Trainer, work: TrainWork) -> Trained:
        with self._working():
            threading.Event().wait(TRAINING_S)
            start = work.local.adapter.vector
            step = np.float32(NORM / np.sqrt(start.size))
            return Trained(start + step, 1, 16, 3.0, 2.9, TRAINING_S)

    def evaluate(self: Trainer, work: EvaluateWork) -> tuple[float, int, float | None]:
        with self._working():
            return 3.0, 100, None

    Trainer.train = train  # type: ignore[method-assign]
    Trainer.evaluate = evaluate  # type: ignore[method-assign]


if __name__ == "__main__":
    by_arithmetic()
    from nomoat.__main__ import main

    main()
