"""A community begins with another's version: recorded, signed, checked from both sides."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from nomoat.aggregation.errors import (
    BadData,
    NomoatError,
    NotJoined,
    RemoteProtocolError,
    UsageError,
)
from nomoat.aggregation.protocol import origin as origins
from nomoat.aggregation.protocol.adapter import Adapter
from nomoat.aggregation.protocol.invitation import Claims, issue
from nomoat.aggregation.protocol.signing import SigningKey
from nomoat.cli import app
from nomoat.client.home import CommunityFolder, Home
from nomoat.client.training.personal_state import DiskPersonalStates, PersonalState
from nomoat.lora.model.adapter_folder import save_folder
from nomoat.lora.model.files import content_hash
from nomoat.server.community.opened import OpenCommunity, card
from nomoat.server.community.versions import VersionStore
from nomoat.server.descent import check_begun, check_related
from nomoat.serving.sources.beginning import find_beginning


def nomoat(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture
def child(community: VersionStore, tmp_path: Path) -> OpenCommunity:
    """A community made from version 1 of the readers, by the command."""
    readers = str(tmp_path / "readers")
    nomoat("init", str(tmp_path / "poets"), "--name", "Poets", "--from", readers, "--allow-weak",
           "--seq-len", "16")  # fmt: skip
    return OpenCommunity.open(tmp_path / "poets")


def test_a_community_begins_with_anothers_version_and_says_so(
    child: OpenCommunity, community: VersionStore, tmp_path: Path, adapters: dict[str, Adapter]
) -> None:
    first, parent = child.versions.get(0), community.get(1)
    assert child.initial().digest == adapters["community@2"].digest
    assert first.version.note == f"begun with version 1 of Readers, record {parent.digest.hex()}"
    assert first.version.note in card(child, first)
    settings = child.settings
    assert (settings.adapter.rank, settings.adapter.alpha) == (4, 8.0)
    assert (settings.base.model, settings.base.license) == ("org/tiny", "apache-2.0")
    said = nomoat("adapter", "verify", "--dir", str(tmp_path / "poets"))
    assert "1 versions" in said
    assert "signed by Readers" in said


def test_descent_is_checked_from_the_child_and_from_the_parent(
    child: OpenCommunity, tmp_path: Path
) -> None:
    readers = OpenCommunity.open(tmp_path / "readers")
    line = "Poets has grown from version 1 of Readers"
    assert check_related(child, tmp_path / "readers") == line
    assert check_related(readers, tmp_path / "poets") == line
    record = tmp_path / "poets" / "origin.rec"
    assert "has grown from version 1 of Readers" in check_related(readers, record)
    with pytest.raises(NomoatError, match="neither"):
        check_related(readers, tmp_path / "readers")
    with pytest.raises(UsageError, match=r"is no origin\.rec"):
        check_related(readers, tmp_path / "poets" / "community.toml")


def test_a_forged_or_lost_origin_is_found(child: OpenCommunity, tmp_path: Path) -> None:
    file = child.folder.origin
    data = file.read_bytes()
    found = origins.from_file(data, "here")
    other = SigningKey(b"\x09" * 32)
    forged = replace(found, community=other.public)  # signed by somebody else
    file.write_bytes(origins.to_file(forged))
    with pytest.raises(NomoatError, match="not signed"):
        check_begun(child)
    file.write_bytes(origins.to_file(replace(found, name="Others")))
    with pytest.raises(NomoatError, match="does not name the kept origin"):
        check_begun(child)
    file.unlink()
    with pytest.raises(NomoatError, match=r"origin\.rec is gone"):
        check_begun(child)
    file.write_bytes(data)
    first = child.versions.get(0).version
    with pytest.raises(RemoteProtocolError, match="not the adapter of its origin"):
        origins.check_child(found, replace(first, adapter=bytes(32)), "here")


def test_a_member_begins_with_the_version_it_has_and_never_with_its_own_part(
    membership: CommunityFolder, tmp_path: Path, adapters: dict[str, Adapter]
) -> None:
    home, version = Home(tmp_path / "home"), adapters["community@2"]
    own = adapters["personal"]
    kept = PersonalState(6, b"\1" * 32, adapters["community@1"], (0,), personal=own)
    DiskPersonalStates(membership.personal_states).save(kept)
    for which in ("community@7", "7", "community", str(membership.root)):
        begun = find_beginning(which, None, tmp_path, home)
        assert begun.adapter.digest == version.digest
        assert begun.origin is not None
        assert begun.origin.community == membership.info().public
    with pytest.raises(UsageError, match="stays at home"):
        find_beginning("personal", None, tmp_path, home)


def test_a_link_leads_to_an_adapter_for_members_only(tmp_path: Path) -> None:
    key = SigningKey(b"\x05" * 32)
    link = issue(Claims("localhost:1", bytes(32), key.public, bytes(16), 1, 2**40), key).link()
    with pytest.raises(NotJoined, match="join it with this link first"):
        find_beginning(link, None, tmp_path, Home(tmp_path / "home"))


def test_an_adapter_nobody_signed_is_named_as_one(
    tmp_path: Path, tiny_model: Path, adapters: dict[str, Adapter]
) -> None:
    peft = tmp_path / "peft"
    save_folder(adapters["personal"], str(tiny_model), peft, "# Mine\n", content_hash(tiny_model))
    begun = find_beginning(str(peft), None, tmp_path, Home(tmp_path / "home"))
    assert begun.origin is None
    assert begun.note == f"begun with an adapter nobody signed, digest {begun.adapter.digest.hex()}"
    with pytest.raises(BadData, match="not the one the adapter was trained on"):
        begun.check(bytes(32), begun.adapter.spec)
    with pytest.raises(BadData, match="rank 4, alpha 8 on"):
        begun.check(begun.base_hash, replace(begun.adapter.spec, alpha=1.0))
