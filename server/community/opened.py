"""A community's folder, opened: what the commands and the coordinator work on. No Flower here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nomoat.aggregation.protocol.adapter import Adapter
from nomoat.aggregation.protocol.enrolment import fingerprint
from nomoat.aggregation.protocol.lineage import SignedVersion
from nomoat.aggregation.protocol.receipts import Receipt, issue
from nomoat.aggregation.secagg.parameters import RosterView
from nomoat.lora.data import template_clock
from nomoat.server.community.database import Database
from nomoat.server.community.folder import Folder
from nomoat.server.community.members import Registrar
from nomoat.server.community.settings import Settings
from nomoat.server.community.versions import VersionStore
from nomoat.server.rounds.receipts import UpdateDigests


@dataclass(frozen=True)
class OpenCommunity:
    """A community's folder, opened: what the commands and the coordinator work on."""

    folder: Folder
    settings: Settings
    registrar: Registrar
    registry: VersionStore

    @classmethod
    def open(cls, root: Path, **flags: Any) -> OpenCommunity:
        """Open a folder; NomoatError in one line if it is not whole."""
        folder = Folder(root)
        settings = folder.load(**flags)
        key = folder.key()
        store = Database(folder.database)
        registrar = Registrar(store, key, settings.community.admission)
        registry = VersionStore(store, folder.adapters, key, bytes.fromhex(settings.base.hash))
        return cls(folder, settings, registrar, registry)

    def initial(self) -> Adapter:
        """Version 0."""
        return self.registry.load(self.registry.get(0))

    def secagg_roster(self) -> RosterView:
        """The approved volunteers, as secure aggregation wants them."""
        roster = self.registrar.roster()
        return RosterView(roster.head, roster.approved())

    def credit(self, number: int, earned: Mapping[str, UpdateDigests], now: int) -> None:
        """Issue receipts for the updates that are in a round's sum."""
        members, key = self.registrar.roster().members, self.registrar.key
        with self.registrar.store.transaction():
            for name, share in earned.items():
                volunteer = members[name].binding.identity  # whoever left stays in the log
                for packet in share.packets:
                    receipt = Receipt(key.public, volunteer, number, packet, share.tokens, now)
                    self.registrar.store.put_receipt(issue(receipt, key))


def card(community: OpenCommunity, record: SignedVersion) -> str:
    """The README of an exported version: where it comes from, in words and numbers."""
    version, settings = record.version, community.settings
    loss = "not measured" if version.loss is None else f"{version.loss:.4f} nats per token"
    before = "not measured" if version.parent_loss is None else f"{version.parent_loss:.4f}"
    own = "not measured" if version.evaluation is None else f"{version.evaluation:.4f}"
    told = (settings.base.left_out, template_clock.line(settings.base.folder))
    notes = "".join(f"- {note}\n" for note in told if note)
    return f"""# {settings.community.name}: community adapter, version {version.number}

A LoRA adapter trained together by {len(version.contributors)} volunteers of
{settings.community.name} on their own machines and data, on {settings.base.model}.

- round {version.round}, method {version.method}
- held-out loss {loss} (the version before: {before})
- loss on the community's own evaluation split {own}
{notes}- base model content hash {version.base_hash.hex()}
- adapter digest {version.adapter.hex()}
- parent record {version.parent.hex()}
- community {fingerprint(community.registrar.key.public)}
- signature {record.signature.hex()}
"""
