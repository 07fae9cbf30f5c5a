"""The adapter that `nomoat init --from` means: a version of another community, or a PEFT folder."""

from __future__ import annotations

from pathlib import Path

from nomoat.aggregation.errors import NotJoined, UsageError
from nomoat.aggregation.protocol.history.key_changes import CommunityKeys
from nomoat.aggregation.protocol.invitation import SCHEME, from_link
from nomoat.aggregation.protocol.lineage import SignedVersion
from nomoat.aggregation.protocol.origin import Origin
from nomoat.client.home import CommunityFolder, Home
from nomoat.client.membership.pinned_lineage import PinnedLineage
from nomoat.client.volunteer.follower import fetch_newest
from nomoat.client.volunteer.kit import Kit
from nomoat.server.community.creation import Beginning
from nomoat.serving.sources.community import CoordinatorsCommunity
from nomoat.serving.sources.find import Found, Wanted, find
from nomoat.serving.sources.membership import JoinedCommunity
from nomoat.serving.sources.source import BASE, COMMUNITY, PERSONAL


def find_beginning(which: str, base: str | None, here: Path, home: Home) -> Beginning:
    """The adapter that is meant; UsageError, NotJoined or BadData in one line if there is none.

    which: a community's, run's or PEFT folder, a version, or the link of a community that this
    machine has joined, whose newest version is fetched first. base: where the base is, if said.
    """
    if which.startswith(SCHEME):
        which = str(_followed(which, home).root)
    found = find(Wanted(which, None, base), here, home)
    voice = _shared(which, found)
    base_ref = found.base
    return Beginning(
        adapter=found.source.load(voice),
        place=base_ref.place,
        name=base_ref.name,
        license=base_ref.license,
        base_hash=base_ref.hash,
        origin=_origin(found, voice),
    )


def _followed(link: str, home: Home) -> CommunityFolder:
    """The folder here of the community a link leads to, with its newest version."""
    folder = home.folder_of(from_link(link).claims.community)
    if not folder.settings.is_file():
        raise NotJoined(
            "an adapter is for the members of its community: join it with this link first "
            "(nomoat join LINK --data FILE)"
        )
    kit = Kit.of(home, folder, folder.load())
    fetch_newest(kit, PinnedLineage(folder.root, kit.coordinator))
    return folder


def _shared(which: str, found: Found) -> str:
    """The voice by its lasting name; UsageError for one that is not everybody's."""
    wanted = COMMUNITY if found.voice == PERSONAL and which != PERSONAL else found.voice
    voice = found.source.exact(wanted)
    if voice == BASE:
        raise UsageError(f"--from {which}: there is no adapter yet, only the base; name it: --base")
    if voice.startswith(PERSONAL):
        raise UsageError("--from personal: what stays at home is no start for a community")
    return voice


def _origin(found: Found, voice: str) -> Origin | None:
    source = found.source
    name = "".join(c if c.isprintable() else " " for c in source.title)
    if isinstance(source, CoordinatorsCommunity):
        return _signed_by(source.opened.versions.keys, name, source.record(voice))
    if isinstance(source, JoinedCommunity):
        return _signed_by(source.folder.keys(), name, source.record(voice))
    return None


def _signed_by(keys: CommunityKeys, name: str, record: SignedVersion) -> Origin:
    """The origin under the key that its record was signed with: the community may have had more."""
    return Origin(name, keys.of_version(record.version.number), record)
