"""A community's folder, opened: what the commands and the coordinator work on. No Flower here."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from nomoat.aggregation.errors import UsageError
from nomoat.aggregation.protocol.adapter import Adapter
from nomoat.aggregation.protocol.enrolment import fingerprint
from nomoat.aggregation.protocol.lineage import SignedVersion, Version
from nomoat.aggregation.protocol.receipts import Receipt, issue
from nomoat.aggregation.protocol.terms.privacy_terms import PrivacyTerms, sign
from nomoat.aggregation.secagg import in_words
from nomoat.aggregation.secagg.parameters import RosterView
from nomoat.lora.data import template_clock
from nomoat.server.community.database import Database
from nomoat.server.community.folder import Folder
from nomoat.server.community.members import Registrar
from nomoat.server.community.membership_rules import AgreedTerms
from nomoat.server.community.settings import Settings
from nomoat.server.community.versions import UNTRAINED, VersionStore
from nomoat.server.consent.ledger import ConsentLedger
from nomoat.server.rounds.receipts import UpdateDigests
from nomoat.server.rounds.records import RoundRecord
from nomoat.server.succession.kept_keys import check_unchanged, key_and_changes
from nomoat.storage.atomic import held


@dataclass(frozen=True)
class OpenCommunity:
    """A community's folder, opened: what the commands and the coordinator work on."""

    folder: Folder
    settings: Settings
    registrar: Registrar
    versions: VersionStore

    @classmethod
    def open(cls, root: Path, **flags: Any) -> OpenCommunity:
        """Open a folder; NomoatError in one line if it is not whole."""
        folder = Folder(root)
        settings = folder.load(**flags)
        key, keys = key_and_changes(folder)
        store = Database(folder.place, keys.founding)
        if folder.restoring.exists():
            store.closed = (
                f"{root} was restored, and its members are asked first for what they still hold: "
                f"nomoat up {root}"
            )
        unchanged = partial(check_unchanged, folder, keys)
        admission = settings.community.admission
        registrar = Registrar(store, key, admission, keys.changes, unchanged)
        base_hash = bytes.fromhex(settings.base.hash)
        versions = VersionStore(store, folder.adapters, key, base_hash, keys.changes, unchanged)
        return cls(folder, settings, registrar, versions)

    def initial(self) -> Adapter:
        """Version 0."""
        return self.versions.load(self.versions.get(0))

    def secagg_roster(self) -> RosterView:
        """The approved volunteers, as secure aggregation wants them."""
        roster = self.registrar.roster()
        return RosterView(roster.head, roster.approved())

    def privacy_terms(self) -> PrivacyTerms:
        """The terms of every sum, as whoever joins agrees to them."""
        return sign(self.settings.privacy_terms(), self.registrar.key)

    def check_fixed(self) -> None:
        """UsageError if a setting was changed that every version so far was made with."""
        spec, shape = self.initial().spec, self.settings.adapter
        newest = self.versions.get(None).version
        # A personal choice may be a method of its own: then rounds.method is not the one that runs.
        method = self.settings.method.name
        for name, now, was in (
            ("adapter.rank", shape.rank, spec.rank),
            ("adapter.alpha", shape.alpha, spec.alpha),
            ("rounds.method", method, newest.method),
        ):
            if now != was and not (name == "rounds.method" and newest.number == 0):
                raise UsageError(
                    f"{self.folder.settings}: {name} was {was} when this community's versions were "
                    f"made and cannot become {now}; set it back, or begin another community with: "
                    "nomoat init --from"
                )

    def check_privacy(self) -> None:
        """UsageError if the noise or the audit that is asked for cannot do what it is asked for."""
        settings, folder = self.settings, self.folder
        values = settings.method.manifest(self.initial().spec, 1, 1).size
        settings.check_privacy(
            values, bool(settings.rounds.norm_bound) or folder.evaluation.exists()
        )

    @contextmanager
    def alone(self, taken: str) -> Iterator[None]:
        """Hold the folder, and the right to run rounds on its records, while the block runs.

        NomoatError, with `taken` if it is on this machine, if another process has them.
        """
        elsewhere = "the community is already up on another machine"
        with held(self.folder.up_lock, taken), self.registrar.database.claimed(elsewhere):
            yield

    @property
    def consents(self) -> ConsentLedger:
        """The terms that hold, and those each member agreed to."""
        return ConsentLedger(self.folder.agreed, self.registrar)

    def keep_terms(self, announce: bool = False) -> None:
        """Note the terms that hold from now on, and those members agreed to until now.

        announce: members who agreed to stricter ones are asked again; else UsageError if there are
        any, who would refuse every round.
        """
        rounds = self.settings.rounds
        now = AgreedTerms.offered(rounds.secure, rounds.least_reports, rounds.allow_weak)
        self.consents.keep(now, self.folder.settings, announce)

    def credit(self, number: int, earned: Mapping[str, UpdateDigests], now: int) -> None:
        """Issue receipts for the updates that are in a round's sum."""
        members, key = self.registrar.roster().members, self.registrar.key
        founding = self.registrar.keys.founding
        with self.registrar.database.transaction():
            for name, share in earned.items():
                volunteer = members[name].binding.identity  # whoever left stays in the log
                for packet in share.packets:
                    receipt = Receipt(founding, volunteer, number, packet, share.tokens, now)
                    self.registrar.database.put_receipt(issue(receipt, key))


def _sizes(community: OpenCommunity, number: int) -> str:
    """Say how large the updates of a round may have been, and who had to leave it for that."""
    text = community.registrar.database.round_record(number)
    if text is None:
        return in_words.sizes(None, False, 0)
    record = RoundRecord.from_json(json.loads(text))
    rounds = community.settings.rounds
    return in_words.sizes(record.norm_bound, rounds.audit and rounds.secure, record.excluded)


def _scanned(community: OpenCommunity, number: int) -> str:
    """Say what was tried on a version before it was given out."""
    sql = "SELECT against, tried, found FROM scans WHERE number = ?"
    rows = community.registrar.database.rows(sql, number)
    if not rows:
        return "not scanned for triggers"
    against, tried, texts = rows[0]
    out = ", ".join(map(json.dumps, json.loads(texts))) or "none"
    return (
        f"scanned for triggers: {tried} texts against version {against}, found: {out} (a trigger "
        "that was not among them is not found)"
    )


def canaries_of(community: OpenCommunity, number: int) -> dict[str, Any] | None:
    """Return the summary of what was measured of a version's canaries, None if nothing was."""
    sql = "SELECT summary FROM canary_checks WHERE number = ?"
    rows = community.registrar.database.rows(sql, number)
    return json.loads(rows[0][0]) if rows else None


def _canaries(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return "no canaries measured"
    said = "; ".join(found["faults"]) or "none"
    return (
        f"canaries: {found['secrets']} planted secrets (most exposed {found['bits']:g} bits, "
        f"{found['bits_allowed']:g} allowed), {found['answers']} expected answers (largest fall "
        f"{found['fall']:g} nats, {found['fall_allowed']:g} allowed); found: {said} (what nobody "
        "planted, and a question that is not among them, is not seen)"
    )


def _noise(version: Version) -> str:
    noise = version.noise
    if noise is None:
        return in_words.NOT_PRIVATE
    said = in_words.private(noise.epsilon, noise.delta, noise.participations)
    return f"{said}; noise multiplier {noise.noise_multiplier:.4g}"


def _gates(record: SignedVersion, canaries: Mapping[str, Any] | None) -> str:
    """Name what a version had to pass before it was accepted."""
    version, passed = record.version, []
    if version.loss is not None:
        passed.append("held-out loss of the volunteers")
    if version.evaluation is not None:
        passed.append("loss on the community's own rows")
    if canaries is not None and not canaries["faults"]:
        passed.append("canaries")
    return ", ".join(passed) or "none: nothing was measured"


def card(community: OpenCommunity, record: SignedVersion) -> str:
    """The README of an exported version: where it comes from, in words and numbers."""
    version, settings = record.version, community.settings
    loss = "not measured" if version.loss is None else f"{version.loss:.4f} nats per token"
    before = "not measured" if version.parent_loss is None else f"{version.parent_loss:.4f}"
    own = "not measured" if version.evaluation is None else f"{version.evaluation:.4f}"
    told = (settings.base.left_out, template_clock.line(settings.base.folder))
    begun = community.versions.get(0).version.note
    notes = "".join(f"- {note}\n" for note in (*told, begun) if note not in ("", UNTRAINED))
    hidden = in_words.protection(settings.rounds.secure, settings.rounds.least_reports)
    canaries = canaries_of(community, version.number)
    return f"""# {settings.community.name}: community adapter, version {version.number}

A LoRA adapter trained together by {len(version.contributors)} volunteers of
{settings.community.name} on their own machines and data, on {settings.base.model}.

- round {version.round}, method {version.method}
- held-out loss {loss} (the version before: {before})
- loss on the community's own evaluation split {own}
{notes}- {_sizes(community, version.round)}
- {_scanned(community, version.number)}
- {_canaries(canaries)}
- gates passed: {_gates(record, canaries)}; {in_words.NOT_COVERED}
- privacy, as the community is set: {hidden}; {_noise(version)}
- base model content hash {version.base_hash.hex()}
- adapter digest {version.adapter.hex()}
- parent record {version.parent.hex()}
- community {fingerprint(community.registrar.keys.founding)}
- signature {record.signature.hex()}
"""
