"""A deployment's journal: an ended round is one transaction, its adapter version part of it.

The adapter's file is written before the transaction that names it, so a kill at any instant leaves
either the round before or the round after, never half of one.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

from nomoat.aggregation import methods
from nomoat.aggregation.errors import LocalProtocolError, NomoatError
from nomoat.aggregation.protocol.adapter import AdapterSpec
from nomoat.server.community.versions import Provenance, VersionStore
from nomoat.server.rounds.acceptance import HeldOutLosses
from nomoat.server.rounds.federation import FederationCheckpoint
from nomoat.server.rounds.records import RoundRecord
from nomoat.storage import arrays


@dataclass(frozen=True)
class CommunityJournal:
    """Rounds in the community's database. clock: unix time in seconds."""

    registry: VersionStore
    spec: AdapterSpec
    method: str
    clock: Callable[[], int]

    def last(self) -> FederationCheckpoint | None:
        """The checkpoint to go on from: the last ended round's, or one rolled back to.

        NomoatError if the stored state cannot be read.
        """
        row = self.registry.store.last_round()
        if row is None:
            return None
        try:
            checkpoint = unpack(row[2], self.spec)
        except (ValueError, KeyError, LocalProtocolError):
            raise NomoatError(
                f"round {row[0]} in the community's database is damaged, or was written by another "
                "revision of nomoat: bring the folder back from a backup"
            ) from None
        newest = self.registry.get(None)
        if newest.version.adapter == checkpoint.state.adapter.digest:
            return checkpoint
        adapter = self.registry.load(newest)  # rolled back: its losses were measured long ago
        state = methods.get(self.method).begin(adapter)
        # Modules that a method has added stay frozen.
        state = replace(state, rank=self.spec.rank)
        return FederationCheckpoint(
            checkpoint.round, state, {}, evaluation=newest.version.evaluation
        )

    def write(self, record: RoundRecord, checkpoint: FederationCheckpoint) -> None:
        """Write one ended round and, if it moved the adapter, its version."""
        store, adapter = self.registry.store, checkpoint.state.adapter
        before = store.last_round()
        self.registry.keep(adapter)
        with store.transaction():
            newest = store.newest_version()
            if newest is None or newest.version.adapter != adapter.digest:
                parent_loss = json.loads(before[1])["loss"] if before else None
                measured = Provenance(
                    record.round,
                    self.method,
                    record.contributors,
                    record.loss,
                    parent_loss,
                    evaluation=record.evaluation,
                )
                self.registry.add(adapter, measured, self.clock())
            text = json.dumps(record.as_json())
            store.put_round(record.round, record.committed, text, pack(checkpoint))


def pack(checkpoint: FederationCheckpoint) -> bytes:
    """A checkpoint as bytes."""
    meta = {
        "round": checkpoint.round,
        "evaluation": checkpoint.evaluation,
        "losses": checkpoint.losses,
        "personal": checkpoint.personal,
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
    )
