"""Trainings of several volunteers as one job: at once where that gives the same, else in turn.

In turn: what cannot go together (unlike settings, unlike layers, a base that draws at random), and
a group one of whose trainings fails, so that only that one has failed. A group that is too large
for the memory is halved.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from nomoat.aggregation.errors import NomoatError
from nomoat.aggregation.protocol.adapter import Adapter, AdapterSpec
from nomoat.lora.data.encoding import Encoded, Example
from nomoat.lora.data.row_counts import RowUse
from nomoat.lora.device import backends
from nomoat.lora.training.out_of_memory import device_lost, out_of_memory
from nomoat.lora.training.together import JoinedTraining, alike, train_together
from nomoat.lora.training.train import Trained, piece_tokens
from nomoat.lora.workers.jobs import JointJob, TrainJob

if TYPE_CHECKING:
    from peft import PeftModel


def train_jointly(
    job: JointJob,
    model_of: Callable[[AdapterSpec], PeftModel],
    encoded_of: Callable[[TrainJob], tuple[Encoded, RowUse]],
    alone: Callable[[TrainJob], Trained],
) -> list[Trained | NomoatError]:
    """Train every part of the job; what came out of each, or why nothing did, in their order.

    model_of: the base with a slot of this shape. encoded_of: a part's rows, and what became of
    them. alone: trains one part by itself.
    """
    parts = job.parts
    if len(parts) == 1 or not alike([part.settings for part in parts]):
        return [_attempted(part, alone) for part in parts]
    try:
        model = model_of(parts[0].spec)
        rows = [encoded_of(part) for part in parts]
        members = [_member(p, found.examples) for p, (found, _) in zip(parts, rows, strict=True)]
        limit = piece_tokens(model, job.most_tokens)
        trained = train_together(model, members, time.monotonic, limit)
        return [replace(one, rows=use) for one, (_, use) in zip(trained, rows, strict=True)]
    except NomoatError:
        return [_attempted(part, alone) for part in parts]
    except Exception as problem:
        if not out_of_memory(problem) or device_lost(problem):
            raise
    backends.of(model.device).give_back()
    middle = len(parts) // 2
    halves = (JointJob(some, job.most_tokens) for some in (parts[:middle], parts[middle:]))
    return [one for half in halves for one in train_jointly(half, model_of, encoded_of, alone)]


def _attempted(part: TrainJob, alone: Callable[[TrainJob], Trained]) -> Trained | NomoatError:
    try:
        return alone(part)
    except NomoatError as problem:
        return problem


def _member(part: TrainJob, examples: Sequence[Example]) -> JoinedTraining:
    return JoinedTraining(
        Adapter(part.spec, part.vector),
        examples,
        part.settings,
        part.seed,
        part.moments,
        part.frozen,
        part.share,
    )
