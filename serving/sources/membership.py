"""A volunteer's community: the newest version here, and what this machine keeps to itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from nomoat.aggregation.errors import NomoatError, RemoteProtocolError
from nomoat.aggregation.methods.composition import Personal
from nomoat.aggregation.protocol import lineage
from nomoat.aggregation.protocol.adapter import Adapter
from nomoat.aggregation.protocol.enrolment import fingerprint
from nomoat.aggregation.protocol.lineage import SignedVersion
from nomoat.aggregation.secagg import in_words
from nomoat.client.home import CommunityFolder
from nomoat.client.membership.agreement import load as load_agreement
from nomoat.client.training.personal_state import DiskPersonalStates, PersonalState
from nomoat.client.training.private_adapter import PrivateAdapter, PrivateAdapterFile
from nomoat.client.training.round_jobs import own_b
from nomoat.lora.export.side_by_side import side_by_side
from nomoat.serving.sources.community import record_losses
from nomoat.serving.sources.source import (
    BASE,
    COMMUNITY,
    PERSONAL,
    BaseRef,
    UnknownVoice,
)

EVERY_ROUND: Final = 1 << 31
LOCAL_B: Final[Personal] = "local-B"


@dataclass(frozen=True)
class JoinedCommunity:
    """One community this machine has joined."""

    folder: CommunityFolder

    @property
    def title(self) -> str:
        """The community's name."""
        return self.folder.name()

    @property
    def base(self) -> BaseRef:
        """The base on this machine, as the community describes it."""
        info = self.folder.info()
        return BaseRef(self.folder.load().base, info.base_model, info.base_hash, info.base_license)

    def voices(self) -> tuple[str, ...]:
        """The newest version here, and `personal` if this machine keeps something."""
        record = self.folder.version()
        if record is None:
            return (BASE,)
        own = (PERSONAL,) if self._kept(record) is not None else ()
        return (BASE, COMMUNITY, f"{COMMUNITY}@{record.version.number}", *own)

    def exact(self, voice: str) -> str:
        """The numbered name; personal@N for what is kept beside version N.

        A private adapter's digits change whenever it is trained on.
        """
        if voice == BASE:
            return voice
        record = self.record(voice)
        number = record.version.number
        if not voice.startswith(PERSONAL):
            return f"{COMMUNITY}@{number}"
        kept = self._kept(record)
        digits = f".{kept.adapter.digest.hex()[:6]}" if isinstance(kept, PrivateAdapter) else ""
        return f"{PERSONAL}@{number}{digits}"

    def load(self, voice: str) -> Adapter:
        """The newest version, alone or with this machine's own part: one adapter, exactly."""
        record = self.record(voice)
        adapter = self._adapter(record)
        if not voice.startswith(PERSONAL):
            return adapter
        kept = self._kept(record)
        assert kept is not None  # `record` has looked
        if isinstance(kept, PrivateAdapter):
            return side_by_side((adapter, kept.adapter))
        if kept.personal is None:
            return own_b(adapter, kept.trained)
        return side_by_side((adapter, kept.personal))

    def card(self, voice: str) -> str:
        """Its origin in words."""
        record, info = self.record(voice), self.folder.info()
        version = record.version
        hidden = in_words.protection(info.secure, info.min_participants)
        agreed = load_agreement(self.folder.root, info)
        private = in_words.private(agreed.epsilon, agreed.delta, agreed.participations)
        own = "\nWith a part of its own that never left this machine.\n"
        return f"""# {info.name}: {voice.partition("@")[0]} adapter, version {version.number}

A LoRA adapter trained together by {len(version.contributors)} volunteers of {info.name} on their
own machines and data, on {info.base_model}.
{own if voice.startswith(PERSONAL) else ""}
- round {version.round}, method {version.method}
- privacy, as the community said when this machine joined: {hidden}; {private}
- {in_words.NOT_COVERED}
- base model content hash {version.base_hash.hex()}
- adapter digest {version.adapter.hex()}
- community {fingerprint(self.folder.keys().founding)}
- signature {record.signature.hex()}
"""

    def losses(self, voice: str) -> Mapping[str, float]:
        """As the version's record has them; of a personal part nothing is on record."""
        return {} if voice.startswith(PERSONAL) else record_losses(self.record(voice))

    def by_volunteer(self, voice: str) -> Mapping[str, float]:
        """Members are told the mean alone."""
        return {}

    def record(self, voice: str) -> SignedVersion:
        """The signed record of the version here; UnknownVoice for any other."""
        record = self.folder.version()
        known = self.voices()
        numbered = voice.removeprefix(PERSONAL).removeprefix(COMMUNITY).partition(".")[0]
        exists = voice in known or (voice.startswith(PERSONAL) and PERSONAL in known)
        if record is None or not exists or numbered not in ("", f"@{record.version.number}"):
            raise UnknownVoice(voice, known)
        return record

    def _adapter(self, record: SignedVersion) -> Adapter:
        path = self.folder.adapter(record)
        try:
            return lineage.from_file(path.read_bytes(), record.version.adapter, "this machine")
        except OSError as problem:
            raise NomoatError(f"{path}: {problem.strerror}; the next round fetches it") from None
        except RemoteProtocolError as problem:
            raise NomoatError(f"{path}: {problem.reason}; delete it to fetch it again") from None

    def _kept(self, record: SignedVersion) -> PersonalState | PrivateAdapter | None:
        """The part of its own that goes with this version, if it has one; a private one first."""
        private = PrivateAdapterFile(self.folder.personal_states).load()
        if private is not None and private.fits(self._adapter(record).spec):
            return private
        states = DiskPersonalStates(self.folder.personal_states)
        kept = states.newest(EVERY_ROUND, record.version.adapter)
        if kept is None or kept.personal is not None:
            return kept
        own = self.folder.info().method == LOCAL_B
        return kept if own and kept.trained.spec == self._adapter(record).spec else None
