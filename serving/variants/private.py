"""One go at a member's private adapter: its rows, a worker that has the base, what is kept."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from nomoat.aggregation.errors import NomoatError, UsageError
from nomoat.aggregation.protocol.messages import TrainSettings
from nomoat.client.data import secrets_allowlist
from nomoat.client.data.split import Split, forget, prepare
from nomoat.client.home import CommunityFolder, Home
from nomoat.client.membership.pinned_lineage import PinnedLineage
from nomoat.client.training.memory_fit import fitted
from nomoat.client.training.private_adapter import (
    Gain,
    PrivateAdapterFile,
    PrivateTraining,
    better,
)
from nomoat.client.volunteer.follower import fetch_newest
from nomoat.client.volunteer.kit import Kit
from nomoat.client.volunteer.status import running
from nomoat.lora.model.files import config, resolve
from nomoat.lora.model.usual_rate import usual_rate
from nomoat.lora.workers.jobs import TrainJob
from nomoat.lora.workers.pool import Pool
from nomoat.serving.sources.membership import JoinedCommunity
from nomoat.serving.sources.source import COMMUNITY


@dataclass(frozen=True)
class PrivateWish:
    """The owner's choices. steps: 0 to measure only. rate: None for what suits the model."""

    steps: int
    rank: int
    rate: float | None


@dataclass(frozen=True)
class PrivateOutcome:
    """Measurements: before any training where there was one to carry on, and after it.

    earlier: on the versions before. kept: the training made it better, and was kept.
    """

    earlier: tuple[Gain, ...]
    carried: Gain | None
    trained: Gain | None
    kept: bool


def go_on(
    home: Home, folder: CommunityFolder, wish: PrivateWish, seed: bytes, say: Callable[[str], None]
) -> PrivateOutcome:
    """Measure the private adapter on the newest version, train it on, keep it if it is better.

    UsageError if there is no version yet, or nothing to measure.
    """
    kit = Kit.of(home, folder, folder.load())
    if not running(folder):
        try:
            fetch_newest(kit, PinnedLineage(folder.root, kit.coordinator))
        except NomoatError as problem:
            say(f"the newest version could not be fetched ({problem}); the one here is used")
    file = PrivateAdapterFile(folder.personal_states)
    kept = file.load()
    if kept is None and not wish.steps:
        raise UsageError("there is no private adapter here yet: --steps N trains one")
    with _rows(home, kit) as split, _training(kit, split, wish, seed) as training:
        if kept is not None and not kept.fits(training.community.spec):
            raise UsageError("the private adapter is of other layers than the community's adapter")
        carried = training.carried(kept) if kept is not None else None
        if carried is not None:
            file.save(carried)
        after = training.trained(carried) if wish.steps else None
        taken = after is not None and better(carried, after)
        if after is not None and taken:
            file.save(after)
    return PrivateOutcome(
        kept.gains if kept is not None else (),
        carried.gains[-1] if carried is not None else None,
        after.gains[-1] if after is not None else None,
        taken,
    )


@contextlib.contextmanager
def _rows(home: Home, kit: Kit) -> Iterator[Split]:
    """The owner's rows, split as for rounds; they are there no longer than they are needed."""
    settings, folder = kit.settings, kit.folder
    allowed = secrets_allowlist.load(home.root)
    try:
        yield prepare(
            settings.data,
            folder.split,
            settings.heldout,
            allowed,
            heldout_data=settings.heldout_data,
        )
    finally:
        if not running(folder):
            forget(folder.split)


@contextlib.contextmanager
def _training(kit: Kit, split: Split, wish: PrivateWish, seed: bytes) -> Iterator[PrivateTraining]:
    source, info, own = JoinedCommunity(kit.folder), kit.folder.info(), kit.settings
    if source.exact(COMMUNITY) not in source.voices():
        raise UsageError(f"{source.title} has no version here yet")
    version, community = source.record(COMMUNITY).version.number, source.load(COMMUNITY)
    rate = usual_rate(config(resolve(own.base))).rate if wish.rate is None else wish.rate
    settings = TrainSettings(
        local_steps=max(1, wish.steps),
        batch_size=info.batch_size,
        seq_len=info.seq_len,
        learning_rate=rate,
    )
    bits = own.machine.base_bits
    job = TrainJob(split.train, community.spec, community.vector, settings, seed)
    job = fitted(job, own.base, own.device, own.machine)
    with Pool(own.base, 1, own.device, bits=bits, base_hash=info.base_hash) as pool:
        yield PrivateTraining(
            community, version, split.heldout, wish.rank, job, pool.submit, pool.submit
        )
