"""The way into a community: everything is known before the sheet is accepted, nothing done."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from nomoat.aggregation.errors import BadData, Refused, RemoteProtocolError, UsageError
from nomoat.aggregation.privacy.accounting import epsilon
from nomoat.aggregation.protocol.enrolment import NAME, NAME_RULE, CommunityInfo, Standing
from nomoat.aggregation.protocol.history.key_changes import CommunityKeys
from nomoat.aggregation.protocol.invitation import Invitation
from nomoat.aggregation.protocol.wire import COORDINATOR
from nomoat.client.connection import coordinator_api
from nomoat.client.connection.https import Endpoint
from nomoat.client.connection.succession import followed_keys
from nomoat.client.connection.succession.followed_keys import from_invited
from nomoat.client.data import secrets_allowlist
from nomoat.client.data.split import FINDINGS, Split, prepare
from nomoat.client.home import CommunityFolder, Home
from nomoat.client.identity.keys import identity
from nomoat.client.machine.free_memory import free_memory
from nomoat.client.machine.limits_settings import MachineSettings
from nomoat.client.membership import agreement
from nomoat.client.membership.agreement import ROOM_PERCENT, Agreement
from nomoat.client.membership.base_model import check_base, check_trains
from nomoat.client.membership.consent_sheet import sheet
from nomoat.client.membership.joining import join
from nomoat.client.membership.terms import questions
from nomoat.client.settings import VolunteerSettings
from nomoat.client.training import community_fit
from nomoat.client.training.memory_fit import Bits, check_held
from nomoat.client.volunteer.agreed_memory import with_memory
from nomoat.lora.data.row_counts import too_many_dropped
from nomoat.lora.device.present import check_there
from nomoat.storage.settings import first_error

FLAGS = {
    "name": "--as",
    "base": "--base",
    "device": "--device",
    "heldout": "--heldout",
    "known_peers": "--known-peers",
    "min_participants": "--min-participants",
}


@dataclass(frozen=True)
class Wish:
    """The owner's choices. base: None if it has to be asked for. bits: None for what fits."""

    data: Path
    base: str | None
    name: str
    device: str
    heldout: float
    heldout_data: Path | None
    rank: int | Literal["auto"]
    bits: Bits | None
    known_peers: int
    allow_dropping: bool = False
    min_participants: int = 0
    room_percent: int = ROOM_PERCENT


@dataclass(frozen=True, slots=True)
class Consent:
    """The things that were accepted by their own names, beside the sheet."""

    weak: bool = False
    audit: bool = False


@dataclass(frozen=True)
class Candidate:
    """A community this machine may join: what it would be asked for, and what it would do.

    rank: modules trained here at most. fit: what training takes of this machine. agreed: what
    accepting the sheet agrees to, but for what is weak in it, which is asked for by name.
    """

    folder: CommunityFolder
    info: CommunityInfo
    settings: VolunteerSettings
    split: Split
    rank: int
    fit: str
    agreed: Agreement
    keys: CommunityKeys
    allow_dropping: bool = False  # of more than a fifth of the rows

    def sheet(self) -> str:
        """The consent sheet."""
        shown = replace(self.info, public=self.keys.founding)  # what it is known by, for good
        return sheet(shown, self.settings, self.split, self.rank, self.fit, self.agreed)

    def left_out(self) -> str:
        """Rows that look secret and are left out, and how to keep them; empty if there are none."""
        return (self.folder.split / FINDINGS).read_text("utf-8") if self.split.secret_rows else ""


def consider(
    home: Home, invitation: Invitation, wish: Wish, ask_base: Callable[[CommunityInfo], str]
) -> Candidate:
    """Ask the community what it is, and check that this machine and its data can take part.

    ask_base: asks the owner where the base model is. Raises what keeps it from that; nothing of
    ours is sent, and nothing that the coordinator names is opened.
    """
    _settings(invitation, wish, wish.base or "", MachineSettings())  # before anything is asked
    if not NAME.fullmatch(wish.name):
        raise UsageError(f"--as: {wish.name!r} is not {NAME_RULE}")
    check_there(wish.device)
    endpoint = coordinator_api.endpoint_of(invitation)
    keys = from_invited(endpoint, invitation.claims.community)
    info = coordinator_api.look(endpoint, keys.current, int(time.time()))
    if wish.known_peers and not info.secure:
        raise UsageError(f"--known-peers protects nothing: {info.name} does not mask updates")
    folder, base = home.folder(keys.founding), _local(wish.base or ask_base(info))
    check_base(base, info.base_hash, info.name)
    settings = _settings(invitation, wish, base, _machine(info, wish, base))
    machine = settings.machine
    check_held(machine, settings.device)
    most = community_fit.rank_of(settings, info)
    community_fit.check_rank(info, base, most)
    split = prepare(
        settings.data,
        folder.split,
        settings.heldout,
        secrets_allowlist.load(home.root),
        heldout_data=settings.heldout_data,
    )
    memory = free_memory(settings.device, layout=machine.layout)
    fit = community_fit.line(info, base, memory, machine.base_bits, most)
    if too_many_dropped(split.read, split.dropped) and not wish.allow_dropping:
        raise BadData(f"{settings.data}: {split.line()}; --allow-dropping joins with what is left")
    parts = check_trains(info, base, wish.device, machine.base_bits, machine.layout)
    fit = f"{fit}\n{parts}" if parts else fit
    offered = _agreed(replace(endpoint, ca=info.ca), info)
    agreed = with_memory(replace(offered, room_percent=wish.room_percent), info, settings, most)
    return Candidate(folder, info, settings, split, most, fit, agreed, keys, wish.allow_dropping)


def enrol(home: Home, candidate: Candidate, invitation: Invitation, consent: Consent) -> str:
    """Join after the sheet was accepted; our name and what it waits for, if for anything.

    consent: to what is weak in it, and to audits.

    Refused if the community does not want this volunteer.
    """
    folder, info = candidate.folder, candidate.info
    settings = candidate.settings.model_copy(update={"audit": consent.audit})
    identity(home.identity, os.urandom)
    folder.save_info(info)
    if candidate.keys.changes:
        followed_keys.save(folder.root, candidate.keys)
    agreement.save(folder.root, replace(candidate.agreed, weak=consent.weak))
    standing, reason = join(home, folder, settings, invitation.token(), info.ca)
    if standing in (Standing.BANNED, Standing.LEFT):
        raise Refused(f"{info.name} has you as {standing.value}: {reason or 'no reason given'}")
    folder.save(settings)
    return settings.name + (" (waits for approval)" if standing is Standing.PENDING else "")


def _agreed(endpoint: Endpoint, info: CommunityInfo) -> Agreement:
    """Ask for all that accepting the sheet agrees to."""
    edition = questions.edition(endpoint, info.public)
    if edition is None:  # of a release before there were any
        agreed = Agreement.of(info, coordinator_api.work_terms(endpoint, info.public))
    else:
        agreed = replace(Agreement.signed(edition.work), edition=edition.number)
    privacy = coordinator_api.privacy_terms(endpoint, info.public)
    if privacy.noise_multiplier:
        comes_to = epsilon(privacy.noise_multiplier, privacy.delta, privacy.participations)
        if comes_to > privacy.epsilon * (1 + 1e-6):
            reason = f"its noise comes to epsilon {comes_to:.3g}, not {privacy.epsilon:g}"
            raise RemoteProtocolError(COORDINATOR, "§5.6", reason)
    return agreed.under(privacy)


def _machine(info: CommunityInfo, wish: Wish, base: str) -> MachineSettings:
    """The way in which the base is held: as usual, else in fewer bits, else laid out."""
    most = 1 if wish.rank == "auto" else wish.rank
    layout, bits = community_fit.held(info, base, wish.device, wish.bits, most)
    return MachineSettings(
        base_bits=bits,
        layers_over_gpus=layout.over_gpus,
        embedding_in_ram=layout.embedding_in_ram,
    )


def _settings(
    invitation: Invitation, wish: Wish, base: str, machine: MachineSettings
) -> VolunteerSettings:
    """The settings of a volunteer that joins; UsageError naming the first that cannot be."""
    try:
        return VolunteerSettings(
            address=invitation.claims.address,
            name=wish.name,
            data=wish.data.resolve(),
            base=base,
            device=wish.device,
            heldout=wish.heldout,
            heldout_data=wish.heldout_data and wish.heldout_data.resolve(),
            rank=wish.rank,
            known_peers=wish.known_peers,
            min_participants=wish.min_participants,
            show_software=True,
            machine=machine,
        )
    except ValidationError as problem:
        key, _, reason = first_error(problem).partition(": ")
        raise UsageError(f"{FLAGS.get(key, key)}: {reason}") from None


def _local(base: str) -> str:
    """A folder by its whole path, a hub id as it is."""
    path = Path(base).expanduser()
    return str(path.resolve()) if path.is_dir() else base
