"""A volunteer's home: settings, communities side by side, a roster that survives a crash."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from builders import community_info
from nomoat.aggregation.errors import NotJoined, UsageError
from nomoat.aggregation.protocol.enrolment import CommunityInfo
from nomoat.aggregation.protocol.signing import SigningKey
from nomoat.client.home import CommunityFolder, Home
from nomoat.client.settings import VolunteerSettings

KEYS = [SigningKey(bytes([i + 1]) * 32) for i in range(4)]
NODE_KEYS = [ec.derive_private_key(3000 + i, ec.SECP384R1()) for i in range(4)]


def info(name: str, key: SigningKey) -> CommunityInfo:
    return community_info(name=name, public=key.public)


def settings(**changes: object) -> VolunteerSettings:
    values = {"address": "h:1", "name": "ada", "data": Path("d.jsonl"), "base": "pocket"}
    return VolunteerSettings(**{**values, **changes})  # type: ignore[arg-type]


def join(home: Home, name: str, key: SigningKey) -> CommunityFolder:
    folder = home.folder(key.public)
    folder.save_info(info(name, key))
    folder.save(settings(name=name))
    return folder


def test_the_home_is_where_the_variable_says(tmp_path: Path) -> None:
    assert Home.find({"NOMOAT_HOME": str(tmp_path)}).root == tmp_path
    assert Home.find({}).root.name == "nomoat"


def test_communities_live_side_by_side_and_are_chosen_by_name_or_id(tmp_path: Path) -> None:
    home = Home(tmp_path)
    with pytest.raises(NotJoined, match="nomoat join"):
        home.choose(None)
    one = join(home, "one", KEYS[0])
    assert home.choose(None) == one
    two = join(home, "two", KEYS[1])
    assert len(home.joined()) == 2
    assert home.choose("two") == two
    assert home.choose(one.root.name[:6]) == one
    with pytest.raises(UsageError, match="which community"):
        home.choose(None)
    with pytest.raises(NotJoined, match="three"):
        home.choose("three")


def test_flags_go_before_environment_before_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = join(Home(tmp_path), "one", KEYS[0])
    assert folder.load().max_steps == 10_000
    monkeypatch.setenv("NOMOAT_MAX_STEPS", "50")
    monkeypatch.setenv("NOMOAT_HOME", str(tmp_path))
    assert folder.load().max_steps == 50
    assert folder.load(max_steps=7, device=None).max_steps == 7


def test_comments_of_the_owner_survive_a_change(tmp_path: Path) -> None:
    folder = join(Home(tmp_path), "one", KEYS[0])
    folder.settings.write_text("# mine\n" + folder.settings.read_text())
    folder.save(settings(device="cpu"))
    assert folder.settings.read_text().startswith("# mine\n")
    assert folder.load().device == "cpu"


@pytest.mark.parametrize("line", ["max_steps = 0", "max_stepps = 3", "= 3"])
def test_a_wrong_setting_is_named_with_its_file(tmp_path: Path, line: str) -> None:
    folder = join(Home(tmp_path), "one", KEYS[0])
    text = folder.settings.read_text().replace("max_steps = 10000", line)
    folder.settings.write_text(text)
    with pytest.raises(UsageError, match=r"settings\.toml"):
        folder.load()
