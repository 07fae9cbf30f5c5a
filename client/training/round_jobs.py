"""Work of a round as jobs for a worker, and what a volunteer keeps of their results."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

from nomoat.aggregation.methods import modules
from nomoat.aggregation.protocol.adapter import Adapter
from nomoat.aggregation.protocol.messages import TrainSettings
from nomoat.client.data.split import Split
from nomoat.client.round.work import EvaluateWork, TrainWork
from nomoat.client.training.personal_state import PersonalState, PersonalStates
from nomoat.lora.model.adapter_spec import initial_adapter
from nomoat.lora.training.evaluate import MeasuredLoss
from nomoat.lora.training.train import Trained
from nomoat.lora.workers.jobs import EvaluateJob, TrainJob

# Of the rows, drawn anew for each round: the same rows never give the same update twice, and two
# updates of one volunteer agree so little that sums do not tell it apart (docs/protocol.md §19.6).
SHARE = 0.5


def train(
    work: TrainWork,
    split: Split,
    personal_states: PersonalStates,
    submit: Callable[[TrainJob], Future[Trained]],
) -> Trained:
    """Train as `work` says, going on from what this volunteer kept; keep what it has to."""
    settings, local = work.task.settings, work.local
    if not (settings.keep_moments or settings.personal != "none"):
        return submit(_job(work, split, local.adapter)).result()
    before = personal_states.newest(work.task.round, local.broadcast.digest)
    same = before if before is not None and _same_modules(before, work) else None
    start = local.adapter
    if settings.personal == "local-B" and same is not None:
        start = own_b(local.adapter, same.trained)
    job = _job(work, split, start)
    if settings.keep_moments and same is not None:
        job = replace(job, moments=same.moments)
    own = submit(_personal_job(work, split, before)) if settings.personal == "adapter" else None
    result = submit(job).result()
    trained = Adapter(local.adapter.spec, result.vector)
    personal = None
    if own is not None:
        personal = Adapter(_personal_start(work, before).spec, own.result().vector)
    personal_states.save(
        PersonalState(
            work.task.round,
            local.broadcast.digest,
            trained,
            local.modules,
            result.moments,
            personal,
        ),
    )
    return result


def evaluate(
    work: EvaluateWork,
    split: Split,
    personal_states: PersonalStates,
    submit: Callable[[EvaluateJob], Future[MeasuredLoss]],
) -> tuple[float, int, float | None]:
    """(loss, tokens, loss with what this volunteer keeps to itself or None), nats per token."""
    settings = work.task.settings
    asked = submit(evaluate_job(split.heldout, work.adapter, settings))
    own = personal_model(work, personal_states) if settings.personal != "none" else None
    if own is None:
        measured, personal = asked.result(), None
    else:
        alone = submit(evaluate_job(split.heldout, own, settings))
        measured, personal = asked.result(), alone.result().loss
    return measured.loss, measured.tokens, personal


def personal_model(work: EvaluateWork, personal_states: PersonalStates) -> Adapter | None:
    """The community's adapter with what this volunteer keeps; None while it keeps nothing."""
    kept = personal_states.newest(work.task.round + 1, work.adapter.digest)
    if kept is None or kept.trained.spec.target_modules != work.adapter.spec.target_modules:
        return None
    if work.task.settings.personal == "local-B":
        fits = kept.trained.spec == work.adapter.spec
        return own_b(work.adapter, kept.trained) if fits else None
    return None if kept.personal is None else modules.append(work.adapter, kept.personal)


def evaluate_job(heldout: Path, adapter: Adapter, settings: TrainSettings) -> EvaluateJob:
    """Measuring an adapter on held-out rows."""
    return EvaluateJob(heldout, adapter.spec, adapter.vector, settings)


def own_b(community: Adapter, mine: Adapter) -> Adapter:
    """The community's A with a volunteer's own B (FedSA-LoRA, arXiv:2410.01463)."""
    return modules.build(
        community.spec,
        {
            layer.name: (a, b)
            for (layer, a, _), (_, _, b) in zip(community.factors(), mine.factors(), strict=True)
        },
    )


def _job(work: TrainWork, split: Split, start: Adapter) -> TrainJob:
    return TrainJob(
        split.train,
        start.spec,
        start.vector,
        work.task.settings,
        work.seed,
        work.local.frozen,
        share=SHARE,
    )


def _personal_job(work: TrainWork, split: Split, before: PersonalState | None) -> TrainJob:
    """Training this volunteer's own adapter on top of the community's, as long as the other."""
    start = _personal_start(work, before)
    settings = replace(work.task.settings, train_a=True, train_b=True, prox=0.0, keep_moments=False)
    seed = hashlib.sha256(b"nomoat personal\0" + work.seed).digest()
    return TrainJob(split.train, start.spec, start.vector, settings, seed, work.local.broadcast)


def _personal_start(work: TrainWork, before: PersonalState | None) -> Adapter:
    spec = work.local.adapter.spec
    if before is not None and before.personal is not None and before.personal.spec == spec:
        return before.personal
    return initial_adapter(spec, b"personal" + work.seed)


def _same_modules(kept: PersonalState, work: TrainWork) -> bool:
    return kept.modules == work.local.modules and kept.trained.spec == work.local.adapter.spec
