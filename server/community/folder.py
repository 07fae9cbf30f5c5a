"""A community's folder: its settings, keys, certificates, database and adapters.

community.toml   settings, with comments (server/community/settings.py)
keys/            community.key (Ed25519), authority.key, server.key: 0600, the community itself
certificates/    authority.pem, server.pem
community.db     invitations, volunteers, roster, rounds, versions (SQLite)
database.url     0600, where they are in PostgreSQL instead (server/engines/place.py)
keys.rec         every change of its key (server/succession)
restored.rec     what it tells volunteers after it was restored from a backup
restoring.rec    while it is restored, and its members have yet to be asked for what they hold
canaries.jsonl   secrets and expected answers that hold versions back (server/release)
origin.rec       the signed version of another community that this one began with, if it did
adapters/        adapter versions, named by their digest
flower/          what Flower keeps while the coordinator runs; nothing of value
"""

from __future__ import annotations

import datetime
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nomoat.aggregation.errors import NomoatError, RemoteProtocolError, UsageError
from nomoat.aggregation.protocol import enrolment, origin
from nomoat.aggregation.protocol.community.spoken import OURS
from nomoat.aggregation.protocol.enrolment import CommunityInfo
from nomoat.aggregation.protocol.origin import Origin
from nomoat.aggregation.protocol.signing import SigningKey
from nomoat.server.community import certificates
from nomoat.server.community.certificates import IssuedCertificate
from nomoat.server.community.settings import Settings, as_toml
from nomoat.server.engines.moving import relocate
from nomoat.server.engines.place import Place, named
from nomoat.server.engines.whereabouts import Whereabouts
from nomoat.storage.atomic import replacing
from nomoat.storage.private import create_private, read_private, write_private
from nomoat.storage.settings import load

RENEW_BEFORE = datetime.timedelta(days=30)
SEED_BYTES = 32


@dataclass(frozen=True)
class Folder:
    """Paths of a community's folder."""

    root: Path

    @property
    def settings(self) -> Path:
        """community.toml."""
        return self.root / "community.toml"

    @property
    def database(self) -> Path:
        """Our own file of records."""
        return self.root / "community.db"

    @property
    def address(self) -> Path:
        """The file that names the database, if it is not our own."""
        return self.root / "database.url"

    @property
    def place(self) -> Place:
        """The place of the records; NomoatError if the file that names it can be read by others."""
        return named(self.address, self.database)

    @property
    def agreed(self) -> Path:
        """The terms that volunteers agreed to by joining."""
        return self.root / "agreed.json"

    @property
    def restored(self) -> Path:
        """Statements that the community was restored from a backup, one for each time."""
        return self.root / "restored.rec"

    @property
    def restoring(self) -> Path:
        """A restore that has begun: nothing is signed while it is there."""
        return self.root / "restoring.rec"

    @property
    def adapters(self) -> Path:
        """Adapter versions."""
        return self.root / "adapters"

    @property
    def origin(self) -> Path:
        """The version of another community that this one began with, if it did."""
        return self.root / "origin.rec"

    @property
    def evaluation(self) -> Path:
        """The held-out rows the community was made with, if any."""
        return self.root / "evaluation.jsonl"

    @property
    def canaries(self) -> Path:
        """Secrets and answers that versions are measured by before they are given out, if any."""
        return self.root / "canaries.jsonl"

    @property
    def flower(self) -> Path:
        """The folder in which Flower keeps what is under way while the coordinator runs."""
        return self.root / "flower"

    @property
    def up_lock(self) -> Path:
        """Held by the coordinator that is up."""
        return self.flower / "up.lock"

    @property
    def server_certificate(self) -> Path:
        """The server's certificate."""
        return self.root / "certificates" / "server.pem"

    @property
    def server_key(self) -> Path:
        """The server certificate's key."""
        return self.root / "keys" / "server.key"

    @property
    def authority_certificate(self) -> Path:
        """The authority's certificate."""
        return self.root / "certificates" / "authority.pem"

    @property
    def authority_key(self) -> Path:
        """The authority's key."""
        return self.root / "keys" / "authority.key"

    @property
    def community_key(self) -> Path:
        """The community's Ed25519 key."""
        return self.root / "keys" / "community.key"

    @property
    def next_key(self) -> Path:
        """The key that takes the community key's place when the present round has ended."""
        return self.root / "keys" / "next.key"

    @property
    def keys(self) -> Path:
        """Every change of the community's key, if there was one."""
        return self.root / "keys.rec"

    def load(self, **flags: Any) -> Settings:
        """The settings; UsageError naming file and key if one cannot be."""
        if not self.settings.is_file():
            raise UsageError(
                f"no community is kept in {self.root}: name its folder, or begin with nomoat init"
            )
        return load(Settings, self.settings, **flags)

    def key(self, path: Path | None = None) -> SigningKey:
        """The community's key; NomoatError if it is missing, readable by others or damaged.

        path: of another one of its keys.
        """
        path = path or self.community_key
        text = read_private(path, "community key")
        try:
            return SigningKey(bytes.fromhex(text.decode("ascii").strip()))
        except ValueError:
            raise NomoatError(
                f"community key {path} is damaged; bring a backup back with nomoat restore"
            ) from None

    def send_records(
        self, url: str | None, community: bytes, move: str, now: datetime.datetime
    ) -> None:
        """Have the records of a folder that is just made be in PostgreSQL if it has a URL."""
        if url is None:
            return
        mark = Whereabouts(community, move, at=int(now.timestamp()))
        relocate(self.address, self.database, url, mark)
        for file in self.root.glob(f"{self.database.name}*"):
            file.unlink()

    def begun_with(self) -> Origin | None:
        """The version this community began with, as its own community signed it."""
        try:
            return origin.from_file(self.origin.read_bytes(), str(self.origin))
        except FileNotFoundError:
            return None
        except RemoteProtocolError as problem:
            raise NomoatError(
                f"{self.origin}: {problem.reason}; bring a backup back with nomoat restore"
            ) from None

    def check_keys(self) -> None:
        """NomoatError in one line if a private key is missing or can be read by others."""
        self.key()
        read_private(self.authority_key, "authority key")
        read_private(self.server_key, "server key")

    def authority(self) -> IssuedCertificate:
        """The certificate authority."""
        key = read_private(self.authority_key, "authority key")
        return IssuedCertificate(_read(self.authority_certificate), key)


def create(folder: Folder, settings: Settings, now: datetime.datetime, seed: bytes) -> SigningKey:
    """Make the folder: keys, certificates and community.toml. `seed`: 32 fresh random bytes.

    NomoatError if there is a community in it already; nothing is ever overwritten.
    """
    if folder.settings.exists():
        raise NomoatError(f"{folder.root} holds a community already")
    folder.root.mkdir(parents=True, exist_ok=True)
    (folder.root / "keys").mkdir(mode=0o700, exist_ok=True)
    key = SigningKey(seed)
    create_private(folder.community_key, seed.hex().encode() + b"\n")
    authority = certificates.make_authority(settings.community.name, now)
    create_private(folder.authority_key, authority.key)
    with replacing(folder.authority_certificate) as file:
        file.write(authority.certificate)
    _issue_server(folder, hosts(settings), now)
    with replacing(folder.settings) as file:  # last: what makes the folder a community
        file.write(as_toml(settings).encode())
    return key


def renew_certificate(folder: Folder, settings: Settings, now: datetime.datetime) -> str | None:
    """Issue a new server certificate if the old one is ending or lacks a name; why, or None.

    Invitations and volunteers trust the authority that issues it, so both go on as they are.
    """
    pem = _read(folder.server_certificate)
    missing = set(hosts(settings)) - certificates.hosts_of(pem)
    if certificates.expires(pem) - now < RENEW_BEFORE:
        reason = f"it ends {certificates.expires(pem):%Y-%m-%d}"
    elif certificates.begins(pem) > now:  # issued while this machine's clock was ahead
        reason = f"it begins {certificates.begins(pem):%Y-%m-%d %H:%M} only"
    elif missing:
        reason = f"it does not name {sorted(missing)[0]}"
    else:
        return None
    _issue_server(folder, hosts(settings), now)
    return reason


def hosts(settings: Settings) -> tuple[str, ...]:
    """The names a server certificate must carry: the public one first, loopback always."""
    public, _ = certificates.split_address(settings.server.address)
    local = ("localhost", "127.0.0.1", "::1")
    machine = _own_name()
    listening = settings.server.host
    others = (certificates.split_address(each)[0] for each in settings.server.also)
    bound = () if certificates.is_every(listening) else (certificates.host_name(listening),)
    return tuple(dict.fromkeys((public, *others, *bound, *machine, *local)))


def _own_name() -> tuple[str, ...]:
    """This machine's name, if a certificate can have it."""
    try:
        return (certificates.host_name(socket.gethostname()),)
    except UsageError:
        return ()


def describe(
    settings: Settings, key: SigningKey, authority: bytes, adapter_values: int
) -> Callable[[int], CommunityInfo]:
    """unix time → what the community says of itself, signed."""
    training = settings.training.settings(settings.rounds.personal)
    blank = CommunityInfo(
        name=settings.community.name,
        public=key.public,
        about=settings.community.about,
        base_model=settings.base.model,
        base_license=settings.base.license,
        base_hash=bytes.fromhex(settings.base.hash),
        base_bytes=settings.base.bytes,
        adapter_values=adapter_values,
        method=settings.method.name,
        local_steps=training.local_steps,
        batch_size=training.batch_size,
        seq_len=training.seq_len,
        secure=settings.rounds.secure,
        min_participants=settings.rounds.least_reports,
        allow_weak=settings.rounds.allow_weak,
        admission=settings.community.admission.value,
        protocol_low=OURS.low,
        protocol_high=OURS.high,
        ca=authority,
        now=0,
        signature=bytes(64),
    )

    def info(now: int) -> CommunityInfo:
        unsigned = replace(blank, now=now)
        signature = key.sign(enrolment.INFO, enrolment.info_bytes(unsigned))
        return replace(unsigned, signature=signature)

    return info


def _issue_server(folder: Folder, names: Sequence[str], now: datetime.datetime) -> None:
    issued = certificates.make_server(folder.authority(), names, now)
    write_private(folder.server_key, issued.key)
    with replacing(folder.server_certificate) as file:
        file.write(issued.certificate)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as problem:
        raise NomoatError(
            f"{path}: {problem.strerror}; bring a backup back with nomoat restore"
        ) from None
