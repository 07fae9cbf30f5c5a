"""An adapter of one's own on top of a community's, at its owner's wish alone; it is never sent.

It is trained with the community's version frozen beneath it, and carried on to the next version:
what it gains there is measured before anything else is done with it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np

from nomoat.aggregation.errors import RemoteProtocolError
from nomoat.aggregation.methods import modules
from nomoat.aggregation.protocol import lineage
from nomoat.aggregation.protocol.adapter import Adapter, AdapterSpec
from nomoat.lora.export.side_by_side import side_by_side
from nomoat.lora.model.adapter_spec import initial_adapter
from nomoat.lora.training.evaluate import MeasuredLoss
from nomoat.lora.training.train import Trained
from nomoat.lora.workers.jobs import EvaluateJob, TrainJob
from nomoat.storage.arrays import pack, unpack
from nomoat.storage.private import read_private, write_private

FILE: Final = "private.safetensors"
WHAT: Final = "private adapter"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Gain:
    """Losses on the held-out rows on top of one version, nats per token; steps: trained so far."""

    version: int
    community: float
    own: float
    steps: int

    @property
    def gain(self) -> float:
        """The nats per token that the private adapter takes off."""
        return self.community - self.own


@dataclass(frozen=True, eq=False)
class PrivateAdapter:
    """The adapter, and its gain on every version it was measured on, the newest last."""

    adapter: Adapter
    gains: tuple[Gain, ...]

    def fits(self, spec: AdapterSpec) -> bool:
        """Tell whether it belongs on top of an adapter of `spec`: the same layers."""
        own = [(layer.name, layer.d_out, layer.d_in) for layer in self.adapter.spec.layers]
        return own == [(layer.name, layer.d_out, layer.d_in) for layer in spec.layers]


@dataclass(frozen=True)
class PrivateAdapterFile:
    """The place where it is kept: a folder of its owner's alone."""

    folder: Path

    @property
    def path(self) -> Path:
        """The one file."""
        return self.folder / FILE

    def load(self) -> PrivateAdapter | None:
        """Return what is kept; None if there is nothing, or it is damaged."""
        if not self.path.is_file():
            return None
        try:
            meta, stored = unpack(read_private(self.path, WHAT))
            digest = bytes.fromhex(meta["digest"])
            adapter = lineage.from_file(bytes(stored["adapter"]), digest, WHAT)
            return PrivateAdapter(adapter, tuple(Gain(**each) for each in meta["gains"]))
        except (ValueError, KeyError, TypeError, RemoteProtocolError):
            log.warning("%s is damaged and left out", self.path)
            return None

    def save(self, kept: PrivateAdapter) -> None:
        """Keep it in place of the one before."""
        meta = {
            "digest": kept.adapter.digest.hex(),
            "gains": [asdict(each) for each in kept.gains],
        }
        stored = np.frombuffer(lineage.to_file(kept.adapter), np.uint8)
        write_private(self.path, pack(meta, {"adapter": stored}))


@dataclass(frozen=True)
class PrivateTraining:
    """A private adapter on one version: measured, trained on, measured again.

    job: the training that is wanted, on top of `community`; its spec, values and frozen modules
    are filled in. Of a fresh adapter, `rank` is the rank.
    """

    community: Adapter
    version: int
    heldout: Path
    rank: int
    job: TrainJob
    train: Callable[[TrainJob], Future[Trained]]
    measure: Callable[[EvaluateJob], Future[MeasuredLoss]]

    def carried(self, kept: PrivateAdapter) -> PrivateAdapter:
        """Measure it on this version, whichever one it was trained on."""
        steps = kept.gains[-1].steps if kept.gains else 0
        return self._measured(kept, kept.adapter, steps)

    def trained(self, kept: PrivateAdapter | None) -> PrivateAdapter:
        """Train it on; a fresh one if there is none yet."""
        if kept is None:
            spec = modules.same_scale(self.community.spec, self.rank)
            kept = PrivateAdapter(initial_adapter(spec, b"private" + self.job.seed), ())
        spec, frozen = kept.adapter.spec, self.community
        job = replace(self.job, spec=spec, vector=kept.adapter.vector, frozen=frozen)
        result = self.train(job).result()
        steps = (kept.gains[-1].steps if kept.gains else 0) + result.steps
        return self._measured(kept, Adapter(spec, result.vector), steps)

    def _measured(self, kept: PrivateAdapter, adapter: Adapter, steps: int) -> PrivateAdapter:
        measured = [each for each in kept.gains if each.version == self.version]
        alone = measured[-1].community if measured else self._loss(self.community)
        own = self._loss(side_by_side((self.community, adapter)))
        earlier = tuple(each for each in kept.gains if each.version != self.version)
        return PrivateAdapter(adapter, (*earlier, Gain(self.version, alone, own, steps)))

    def _loss(self, adapter: Adapter) -> float:
        settings, most = self.job.settings, self.job.most_tokens
        job = EvaluateJob(self.heldout, adapter.spec, adapter.vector, settings, most)
        return self.measure(job).result().loss


def better(before: PrivateAdapter | None, after: PrivateAdapter) -> bool:
    """Tell whether a training made the held-out loss smaller, than before and than without it."""
    now = after.gains[-1]
    known = before.gains[-1].own if before is not None else now.community
    return now.own < min(known, now.community)
