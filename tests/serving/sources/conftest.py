"""A run, a community, a membership and a PEFT folder of one tiny model."""

from __future__ import annotations

import datetime
import json
from pathlib import Path

import pytest

from builders import community_info
from nomoat.aggregation.protocol import lineage
from nomoat.aggregation.protocol.adapter import Adapter
from nomoat.aggregation.protocol.signing import SigningKey
from nomoat.client.home import CommunityFolder, Home
from nomoat.client.settings import VolunteerSettings
from nomoat.lora.model.adapter_folder import save_folder
from nomoat.lora.model.files import content_hash
from nomoat.server.community.database import Database
from nomoat.server.community.folder import Folder, create
from nomoat.server.community.settings import (
    BaseModelSettings,
    CommunityRoundSettings,
    CommunitySettings,
    Settings,
)
from nomoat.server.community.versions import Provenance, VersionStore
from nomoat.storage.atomic import replacing

NOW = datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)


@pytest.fixture
def run_folder(tmp_path: Path, tiny_model: Path, adapters: dict[str, Adapter]) -> Path:
    """What `nomoat simulate` leaves, as far as it is read here."""
    run = tmp_path / "my run"
    run.mkdir()
    (run / "config.toml").write_text(f'[scenario]\nmodel = "{tiny_model}"\n')
    (run / "metrics.jsonl").write_text("{}\n")
    (run / "summary.json").write_text('{"base": {"loss": 3.5}, "community": {"loss": 3.1}}')
    digest = content_hash(tiny_model)
    save_folder(adapters["community@1"], str(tiny_model), run / "adapter", "# A run\n", digest)
    return run


@pytest.fixture
def community(tmp_path: Path, tiny_model: Path, adapters: dict[str, Adapter]) -> VersionStore:
    """A coordinator's folder with versions 0 and 1."""
    base = BaseModelSettings(
        model="org/tiny",
        folder=tiny_model,
        license="apache-2.0",
        hash=content_hash(tiny_model).hex(),
        bytes=1,
    )
    settings = Settings(
        community=CommunitySettings(name="Readers"),
        base=base,
        rounds=CommunityRoundSettings(seed="00" * 32),
    )
    folder = Folder(tmp_path / "readers")
    key = create(folder, settings, NOW, b"\5" * 32)
    store = VersionStore(Database(folder.database), folder.adapters, key, content_hash(tiny_model))
    for number, name in enumerate(("community@1", "community@2")):
        made = Provenance(number, "fedavg", ("ada", "ben"), 3.0 - number / 10, 3.0, "", 2.5)
        store.add(adapters[name], made, 100 + number)
    return store


@pytest.fixture
def membership(tmp_path: Path, tiny_model: Path, adapters: dict[str, Adapter]) -> CommunityFolder:
    """A volunteer's folder that has seen version 7."""
    key = SigningKey(b"\6" * 32)
    digest = content_hash(tiny_model)
    folder = Home(tmp_path / "home").folder(key.public)
    folder.save(
        VolunteerSettings(
            address="localhost:1", name="ada", data=tmp_path / "rows", base=str(tiny_model)
        )
    )
    folder.save_info(
        community_info(
            name="Writers", public=key.public, base_model="org/tiny", base_license="mit",
            base_hash=digest,
        )
    )  # fmt: skip
    adapter = adapters["community@2"]
    version = lineage.Version(
        7, bytes(32), adapter.digest, digest, 7, "fedavg", ("ada",), 2.9, 3.0, None, "", 1
    )
    record = lineage.sign(version, key)
    with replacing(folder.adapter(record)) as file:
        file.write(lineage.to_file(adapter))
    folder.save_version(record)
    return folder


@pytest.fixture
def peft_folder(tmp_path: Path, tiny_model: Path, adapters: dict[str, Adapter]) -> Path:
    """A PEFT folder with patterns, as other programs write them."""
    folder = tmp_path / "peft"
    save_folder(adapters["personal"], str(tiny_model), folder, "# Mine\n", content_hash(tiny_model))
    file = folder / "adapter_config.json"
    config = json.loads(file.read_text()) | {"alpha_pattern": {"q_proj": 2.0}}
    file.write_text(json.dumps(config))
    return folder
