"""A deployment's journal: an ended round is one transaction, its adapter version part of it.

The adapter's file is written before the transaction that names it, so a kill at any instant leaves
either the round before or the round after, never half of one.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from functools import partial

from nomoat.aggregation import methods
from nomoat.aggregation.errors import LocalProtocolError
from nomoat.aggregation.methods.base import MethodState
from nomoat.aggregation.protocol.adapter import AdapterSpec
from nomoat.aggregation.protocol.lineage import SignedVersion, VersionNoise
from nomoat.server.community.versions import SENT_BACK, Provenance, VersionStore
from nomoat.server.rounds.acceptance import HeldOutLosses
from nomoat.server.rounds.federation import FederationCheckpoint
from nomoat.server.rounds.records import Overruled, RoundRecord
from nomoat.storage import arrays

log = logging.getLogger(__name__)

BRIEF_BYTES = 4000


@dataclass(frozen=True)
class CommunityJournal:
    """Rounds in the community's database. clock: unix time in seconds. noise: in its sums.

    overruled: says why a round may not be committed now; "": it may.
    """

    versions: VersionStore
    spec: AdapterSpec
    method: str
    clock: Callable[[], int]
    noise: VersionNoise | None = None
    overruled: Callable[[], str] = str

    def last(self) -> FederationCheckpoint | None:
        """The checkpoint to go on from: the last ended round's, or one rolled back to.

        One that cannot be read is made anew from the newest version and the records of rounds;
        NomoatError if those cannot be read either.
        """
        row = self.versions.database.last_round()
        if row is None:
            return None
        number, text, data = row
        try:
            checkpoint = unpack(data, self.spec)
        except (ValueError, KeyError, TypeError, LocalProtocolError):
            log.warning(
                "round %d's checkpoint is damaged: going on from the newest version, without what "
                "the method and the server optimiser remembered",
                number,
            )
            checkpoint = self._derived(number, text)
        checkpoint = self._with_rounds_after(checkpoint)
        newest = self.versions.get(None)
        if newest.version.adapter == checkpoint.state.adapter.digest:
            self.versions.keep(checkpoint.state.adapter)  # its file may be torn
            return checkpoint
        # Rolled back: its losses were measured long ago. A person may mean that the best is none.
        return FederationCheckpoint(
            checkpoint.round,
            self._begun(newest),
            {},
            evaluation=newest.version.evaluation,
            best=checkpoint.best if newest.version.note.startswith(SENT_BACK) else None,
            spared=checkpoint.spared,
        )

    def _derived(self, number: int, text: str) -> FederationCheckpoint:
        """Make the checkpoint of a round from its record and the version it gave."""
        record = RoundRecord.from_json(json.loads(text))
        before = map(RoundRecord.from_json, map(json.loads, self.versions.database.rounds()))
        return FederationCheckpoint(
            number,
            self._begun(self.versions.get(None)),
            record.losses,
            evaluation=record.evaluation,
            personal=record.personal,
            spared=number - sum(0 < each.round <= number and each.summed for each in before),
        )

    def _begun(self, record: SignedVersion) -> MethodState:
        """The method at a version; modules that it has added stay frozen."""
        state = methods.get(self.method).begin(self.versions.load(record))
        return replace(state, rank=self.spec.rank)

    def _with_rounds_after(self, checkpoint: FederationCheckpoint) -> FederationCheckpoint:
        """Return `checkpoint` as it stands after the abandoned rounds that have none."""
        rounds = self.versions.database.rounds_after(checkpoint.round)
        for record in map(RoundRecord.from_json, map(json.loads, rounds)):
            if record.summed:  # numbers that were passed over before it count as none
                checkpoint = replace(checkpoint.passing(record.round - 1), round=record.round)
            elif not record.reusable:
                checkpoint = checkpoint.passing(record.round)
        return checkpoint

    def standing(self, checkpoint: FederationCheckpoint) -> FederationCheckpoint:
        """Return where to go on from: `checkpoint`, unless the newest version is another's."""
        newest = self.versions.database.newest_version()
        if newest is None or newest.version.adapter == checkpoint.state.adapter.digest:
            return checkpoint
        return self.last() or checkpoint

    def history(self) -> Iterable[RoundRecord]:
        """The records of all ended rounds, in order; abandoned ones with as many names as fit."""
        return map(RoundRecord.from_json, map(json.loads, self.versions.database.rounds()))

    def write(self, record: RoundRecord, checkpoint: FederationCheckpoint) -> None:
        """Write one ended round and, if it moved the adapter, its version.

        One that was abandoned leaves everything as it was: its record is all there is to keep.
        Overruled, with nothing written, if it is not to be committed.
        """
        self.versions.database.settled(partial(self._write, record, checkpoint))

    def _write(self, record: RoundRecord, checkpoint: FederationCheckpoint) -> None:
        store, adapter = self.versions.database, checkpoint.state.adapter
        if not record.committed:
            with store.transaction():
                store.put_round(record.round, False, brief(record), b"")
            return
        self.versions.keep(adapter)
        try:
            self._commit(record, checkpoint)
        except Overruled:
            self.versions.sweep()
            raise

    def _commit(self, record: RoundRecord, checkpoint: FederationCheckpoint) -> None:
        store, adapter = self.versions.database, checkpoint.state.adapter
        before = store.standing_record()
        with store.transaction():
            newest = store.newest_version()
            if newest is None or newest.version.adapter != adapter.digest:
                if why := self.overruled():
                    raise Overruled(why)
                parent_loss = json.loads(before)["loss"] if before else None
                measured = Provenance(
                    record.round,
                    self.method,
                    record.contributors,
                    record.loss,
                    parent_loss,
                    evaluation=record.evaluation,
                    noise=self.noise if record.noise else None,
                )
                self.versions.record(adapter.digest, measured, self.clock())
            text = json.dumps(record.as_json())
            store.put_round(record.round, record.committed, text, pack(checkpoint))


def brief(record: RoundRecord) -> str:
    """An abandoned round's record as JSON of at most BRIEF_BYTES: with as many names as fit.

    Losses are of the adapter that stands: they are in the record of the round that gave it.
    """
    bare = replace(record, losses={}, personal={}, ranks={}, train_loss={}, train_seconds={})
    names = max(len(bare.cohort), len(bare.contributors))
    while len(text := json.dumps(bare.as_json())) > BRIEF_BYTES:
        names //= 2
        bare = replace(
            bare,
            cohort=bare.cohort[:names],
            contributors=bare.contributors[: max(1, names)],
            misfits=bare.misfits[:names],
            left_out=dict(list(bare.left_out.items())[:names]),
            dropped=dict(list(bare.dropped.items())[:names]),
            refused=dict(list(bare.refused.items())[:names]),
            reason=bare.reason[:200],
        )
    return text


def pack(checkpoint: FederationCheckpoint) -> bytes:
    """A checkpoint as bytes."""
    meta = {
        "round": checkpoint.round,
        "evaluation": checkpoint.evaluation,
        "losses": checkpoint.losses,
        "personal": checkpoint.personal,
        "spared": checkpoint.spared,
        "best": None if checkpoint.best is None else asdict(checkpoint.best),
    }
    return arrays.pack(meta, checkpoint.to_arrays())


def unpack(data: bytes, spec: AdapterSpec) -> FederationCheckpoint:
    """The checkpoint that `pack` made bytes of, for an adapter of `spec`."""
    meta, values = arrays.unpack(data)
    read = FederationCheckpoint.from_arrays(meta["round"], spec, values, meta["losses"])
    best = meta.get("best")
    return replace(
        read,
        evaluation=meta["evaluation"],
        personal=meta.get("personal", {}),
        best=None if best is None else HeldOutLosses(**best),
        spared=meta.get("spared", 0),
    )
