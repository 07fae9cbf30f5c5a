"""A community's PRIVACY.md says what is true of its settings, and is written once."""

from __future__ import annotations

from pathlib import Path

import pytest

from nomoat.server import privacy_note
from nomoat.server.community.folder import Folder
from nomoat.server.community.settings import (
    BaseModelSettings,
    CommunityRoundSettings,
    CommunitySettings,
    Settings,
    WatchSettings,
    as_toml,
)


def settings(hooks: tuple[str, ...] = (), **rounds: object) -> Settings:
    return Settings(
        community=CommunitySettings(name="town"),
        base=BaseModelSettings(model="m", folder=Path("m"), hash="ab" * 32, bytes=1),
        rounds=CommunityRoundSettings.model_validate({"seed": "00" * 32, **rounds}),
        watch=WatchSettings(hooks=hooks),
    )


@pytest.mark.parametrize(
    ("given", "said", "unsaid"),
    [
        ({"secure": False}, "we see each of them in the open", "only their sum"),
        ({"min_volunteers": 12}, "we never see a single one, only their sum", "in the open"),
        ({"min_volunteers": 3}, "weak: updates are masked, but as few as 3", "in the open"),
    ],
)
def test_it_says_how_updates_are_protected(
    given: dict[str, object], said: str, unsaid: str
) -> None:
    note = privacy_note.text(settings(**given))
    assert said in note
    assert unsaid not in note


def test_it_tells_of_notices_only_where_there_are_any() -> None:
    assert "go to 2 of our own addresses" in privacy_note.text(settings(("https://a", "https://b")))
    assert "Notices" not in privacy_note.text(settings())


def test_what_its_owner_has_written_is_never_replaced(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.settings.write_text(as_toml(settings()))
    privacy_note.write(folder)
    note = tmp_path / privacy_note.NAME
    assert note.read_text().startswith("# Privacy in town")
    note.write_text("mine")
    privacy_note.write(folder)
    assert note.read_text() == "mine"
