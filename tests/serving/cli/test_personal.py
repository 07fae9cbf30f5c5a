"""A member trains an adapter of its own, and carries it on to the community's next version."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from builders import topic_rows
from nomoat.aggregation.errors import UsageError
from nomoat.aggregation.protocol import lineage
from nomoat.aggregation.protocol.adapter import Adapter
from nomoat.aggregation.protocol.lineage import SignedVersion
from nomoat.aggregation.protocol.signing import SigningKey
from nomoat.cli import app
from nomoat.client.home import CommunityFolder
from nomoat.client.identity.keys import identity
from nomoat.serving.sources.membership import JoinedCommunity
from nomoat.storage.atomic import replacing
from tests.serving.sources.conftest import membership

__all__ = ["membership"]


@pytest.fixture
def member(
    membership: CommunityFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> CommunityFolder:
    """A member with rows, whose coordinator is not up."""
    monkeypatch.setenv("NOMOAT_HOME", str(tmp_path / "home"))
    identity(tmp_path / "home" / "identity.key", lambda count: b"\1" * count)
    (tmp_path / "rows").mkdir()
    topic_rows(tmp_path / "rows" / "mail.jsonl", "mail")
    info = replace(membership.info(), batch_size=4, seq_len=16)
    membership.save_info(info)
    return membership


def personal(*options: str) -> Any:
    done = CliRunner().invoke(app, ["adapter", "personal", "--json", *options])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return json.loads(done.stdout)


def next_version(folder: CommunityFolder, adapter: Adapter) -> None:
    """The community's next version, fetched."""
    old = folder.version()
    assert old is not None
    version = replace(old.version, number=8, adapter=adapter.digest, parent=old.digest)
    record: SignedVersion = lineage.sign(version, SigningKey(b"\6" * 32))
    with replacing(folder.adapter(record)) as file:
        file.write(lineage.to_file(adapter))
    folder.save_version(record)


def test_its_gain_is_measured_on_every_version_and_the_command_keeps_only_what_is_better(
    member: CommunityFolder, adapters: dict[str, Adapter]
) -> None:
    with pytest.raises(UsageError, match="no private adapter here yet"):
        personal("--steps", "0")
    assert "personal" not in JoinedCommunity(member).voices()
    first = personal("--steps", "12", "--rank", "2", "--lr", "0.02")
    assert first["kept"]
    assert first["carried"] is None
    assert first["trained"]["own"] < first["trained"]["community"]
    source = JoinedCommunity(member)
    assert "personal" in source.voices()
    assert source.load("personal").spec.rank == 4 + 2  # one adapter, exactly
    named = source.exact("personal")
    assert source.load(named).digest == source.load("personal").digest
    behind = "on version 7; nomoat adapter personal carries it on"
    assert behind not in CliRunner().invoke(app, ["status"]).stdout
    next_version(member, adapters["community@3"])
    assert behind in CliRunner().invoke(app, ["status"]).stdout
    second = personal("--steps", "12", "--lr", "0.02")
    assert [gain["version"] for gain in second["earlier"]] == [7]
    carried, trained = second["carried"], second["trained"]
    assert carried["version"] == trained["version"] == 8
    assert carried["community"] != first["trained"]["community"]
    assert (carried["steps"], trained["steps"]) == (12, 24)
    assert trained["own"] < carried["own"]
    assert named.startswith("personal@7.")
    assert source.exact("personal").startswith("personal@8.")
    assert source.exact("personal")[-6:] != named[-6:]  # a server answers under the newest
    status = CliRunner().invoke(app, ["status"]).stdout
    gain = trained["community"] - trained["own"]
    assert f"your private adapter gains {gain:+.4f} nats a token on version 8" in status
    assert not list(member.split.glob("*.jsonl"))  # no copy of the rows stays behind
    ruined = personal("--steps", "3", "--lr", "3")
    assert not ruined["kept"]
    again = personal("--steps", "0")["carried"]
    assert again["own"] == pytest.approx(trained["own"], abs=1e-6)
