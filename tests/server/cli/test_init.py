"""`nomoat init` makes a whole community, or leaves the folder as it was."""

from __future__ import annotations

import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from nomoat.aggregation.errors import NomoatError
from nomoat.aggregation.protocol.invitation import from_link
from nomoat.cli import app
from nomoat.client.membership.base_model import check_trains
from nomoat.lora.model.files import content_hash
from nomoat.server.community.certificates import canonical
from nomoat.server.community.folder import Folder, create
from nomoat.server.community.settings import (
    BaseModelSettings,
    CommunityRoundSettings,
    CommunitySettings,
    ServerSettings,
    Settings,
)
from nomoat.simulations.pocket import MODEL_DIR


def init(folder: Path, *options: str) -> None:
    given = ("--name", "x", "--base", str(MODEL_DIR), "--allow-weak", *options)
    result = CliRunner().invoke(app, ["init", str(folder), *given])
    if result.exception is not None:
        raise result.exception


def test_the_model_that_comes_with_the_package_is_a_base_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And whoever joins from this account has no model loaded for what was just found."""
    (tmp_path / "pocket").mkdir()  # a folder of that name is meant by ./pocket
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    init(tmp_path / "town", "--base", "pocket", "--seq-len", "16")
    monkeypatch.setattr("nomoat.client.membership.base_model.Pool", None)
    joined: Any = SimpleNamespace(base_hash=content_hash(MODEL_DIR), seq_len=16, name="x")
    assert check_trains(joined, str(MODEL_DIR), "cpu") == ""
    base = Folder(tmp_path / "town").load().base
    assert (base.model, base.folder) == ("pocket", MODEL_DIR)
    with pytest.raises(NomoatError, match="by name there are pocket and smollm2"):
        init(tmp_path / "other", "--base", "pockets")


REFUSED = {
    "a name that is too long": ("--name", "x" * 81),
    "an address without a port": ("--address", "example.org"),
    "an address that is none": ("--address", "a..b:8443"),
    "a port that is none": ("--address", "example.org:99999"),
    "a seed": ("--seed", "xyz"),
    "a base that is not there": ("--base", "/nowhere/at/all"),
    "rows that are not there": ("--eval", "/nowhere/rows.jsonl"),
    "a setting out of its range": ("--max-rounds", "0"),
}


@pytest.mark.parametrize("options", REFUSED.values(), ids=REFUSED.keys())
def test_a_refused_init_leaves_nothing_behind(tmp_path: Path, options: tuple[str, ...]) -> None:
    with pytest.raises((NomoatError, SystemExit)):
        init(tmp_path / "deep" / "town", *options)
    assert not list(tmp_path.iterdir())


def test_the_corrected_init_works_after_one_that_broke_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr("nomoat.server.community.versions.VersionStore.add", full)
        with pytest.raises(NomoatError, match="No space left"):
            init(tmp_path / "town")
    assert not list(tmp_path.iterdir())
    init(tmp_path / "town", "--address", "[2001:DB8:0:0::1]:8443")
    made = Folder(tmp_path / "town")
    made.check_keys()
    server = made.load().server
    assert (server.host, server.address) == ("::", "[2001:db8::1]:8443")


@pytest.mark.parametrize(
    "address", ["[0:0::1]:8443", "münchen.example:8443", "[2001:DB8::0:1]:443", "Host.example:1"]
)
def test_an_address_that_init_takes_is_one_that_invite_takes(tmp_path: Path, address: str) -> None:
    settings = Settings(
        community=CommunitySettings(name="town"),
        base=BaseModelSettings(model="m", folder=Path("m"), hash="ab" * 32, bytes=1),
        rounds=CommunityRoundSettings(seed="00" * 32),
        server=ServerSettings(address=address),
    )
    create(Folder(tmp_path / "town"), settings, datetime.datetime.now(datetime.UTC), b"\7" * 32)
    result = CliRunner().invoke(app, ["invite", str(tmp_path / "town"), "--quiet"])
    assert result.exception is None
    assert from_link(result.stdout).claims.address == canonical(address)
