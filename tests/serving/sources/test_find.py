"""What is meant by --adapter is found wherever it lies, or refused in one line."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from nomoat.aggregation.errors import BadData, NomoatError, NotJoined, UsageError
from nomoat.aggregation.protocol.adapter import Adapter
from nomoat.client.home import CommunityFolder, Home
from nomoat.client.training.personal_state import DiskPersonalStates, PersonalState
from nomoat.lora.export.side_by_side import side_by_side
from nomoat.server.community.versions import Provenance, VersionStore
from nomoat.serving.sources.find import Found, Wanted, find, folder_of
from nomoat.serving.sources.source import UnknownVoice


@pytest.fixture
def nowhere(tmp_path: Path) -> Path:
    folder = tmp_path / "empty"
    folder.mkdir()
    return folder


def found(tmp_path: Path, nowhere: Path, here: Path | None = None, **wanted: str) -> Found:
    return find(Wanted(**wanted), here or nowhere, Home(tmp_path / "home"))


def test_a_run_is_found_with_its_base_and_losses(
    run_folder: Path, tmp_path: Path, nowhere: Path, tiny_model: Path, adapters: dict[str, Adapter]
) -> None:
    for what in (
        found(tmp_path, nowhere, adapter=str(run_folder)),
        found(tmp_path, nowhere, here=run_folder),
    ):
        assert (what.source.title, what.voice) == ("my run", "community")
        assert what.source.voices() == ("base", "community")
        assert what.source.load("community").digest == adapters["community@1"].digest
        assert what.source.losses("community")["held-out loss"] == 3.1
        assert what.source.card("community") == "# A run\n"
        assert folder_of(what.base) == tiny_model


def test_a_community_offers_every_version_and_new_ones_at_once(
    community: VersionStore, tmp_path: Path, nowhere: Path, adapters: dict[str, Adapter]
) -> None:
    what = found(tmp_path, nowhere, adapter=str(tmp_path / "readers"))
    source = what.source
    assert source.voices() == ("base", "community", "community@1", "community@0")
    assert source.exact("community") == "community@1"
    assert source.load("community").digest == adapters["community@2"].digest
    community.add(adapters["community@3"], Provenance(2, "fedavg", ("ada",), 2.0, 2.9), 200)
    assert source.exact("community") == "community@2"
    assert source.load("community@0").digest == adapters["community@1"].digest
    assert source.losses("community@1")["loss on the community's own rows"] == 2.5
    assert "version 1" in source.card("community@1")
    assert (what.base.name, what.base.license) == ("org/tiny", "apache-2.0")
    for wrong in ("community@9", "personal", "community@", "adapter", "../x"):
        with pytest.raises(UnknownVoice, match="there are base, community"):
            source.exact(wrong)


def test_a_version_alone_means_the_community_one_is_in(
    community: VersionStore, tmp_path: Path, nowhere: Path
) -> None:
    for said in ("0", "community@0"):
        what = found(tmp_path, nowhere, here=tmp_path / "readers", adapter=said)
        assert what.voice == "community@0"


def test_a_volunteer_has_the_newest_version_and_what_it_keeps_to_itself(
    membership: CommunityFolder, tmp_path: Path, nowhere: Path, adapters: dict[str, Adapter]
) -> None:
    what = found(tmp_path, nowhere)
    source = what.source
    assert (source.title, what.voice) == ("Writers", "community")
    assert source.voices() == ("base", "community", "community@7")
    own = adapters["personal"]
    kept = PersonalState(6, b"\1" * 32, adapters["community@1"], (0,), personal=own)
    DiskPersonalStates(membership.personal_states).save(kept)
    assert source.voices()[-1] == "personal"
    assert source.exact("personal") == "personal@7"
    both = source.load("personal@7")
    expected = side_by_side((adapters["community@2"], own))
    assert np.array_equal(both.vector, expected.vector)
    assert found(tmp_path, nowhere).voice == "personal"
    assert "never left this machine" in source.card("personal")
    with pytest.raises(UnknownVoice):
        source.exact("community@6")


def test_a_part_of_a_round_that_did_not_lead_here_is_not_used(
    membership: CommunityFolder, tmp_path: Path, nowhere: Path, adapters: dict[str, Adapter]
) -> None:
    started_here = adapters["community@2"].digest  # the version's own adapter: not committed yet
    kept = PersonalState(
        8, started_here, adapters["community@1"], (0,), personal=adapters["personal"]
    )
    DiskPersonalStates(membership.personal_states).save(kept)
    assert "personal" not in found(tmp_path, nowhere).source.voices()


def test_a_peft_folder_of_another_program_is_one_adapter(
    peft_folder: Path, tmp_path: Path, nowhere: Path
) -> None:
    source = found(tmp_path, nowhere, adapter=str(peft_folder)).source
    adapter = source.load("community")
    assert adapter.spec.scale == 1.0  # every scale stands in B
    assert source.card("community") == "# Mine\n"


def test_a_base_alone_can_be_talked_to(tmp_path: Path, nowhere: Path, tiny_model: Path) -> None:
    what = found(tmp_path, nowhere, base=str(tiny_model))
    assert what.source.voices() == ("base",)
    assert what.voice == "base"
    with pytest.raises(UnknownVoice):
        what.source.load("community")
    pocket = found(tmp_path, nowhere, base="pocket")
    assert (folder_of(pocket.base) / "config.json").is_file()


def test_a_base_that_is_another_one_is_refused(
    run_folder: Path, tmp_path: Path, nowhere: Path, tiny_model: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(tiny_model, other)
    assert (
        folder_of(found(tmp_path, nowhere, adapter=str(run_folder), base=str(other)).base) == other
    )
    with (other / "model.safetensors").open("ab") as file:
        file.write(b"\0")
    what = found(tmp_path, nowhere, adapter=str(run_folder), base=str(other))
    with pytest.raises(BadData, match="not the one the adapter was trained on"):
        folder_of(what.base)


def test_what_is_nothing_is_refused_in_one_line(
    run_folder: Path, tmp_path: Path, nowhere: Path
) -> None:
    with pytest.raises(NotJoined, match="--adapter FOLDER"):
        found(tmp_path, nowhere)
    with pytest.raises(UsageError, match="neither a folder nor a version"):
        found(tmp_path, nowhere, adapter="no/such/folder")
    with pytest.raises(BadData, match="no run, no community's folder"):
        found(tmp_path, nowhere, adapter=str(nowhere))
    shutil.rmtree(run_folder / "adapter")
    with pytest.raises(BadData, match="has not ended"):
        found(tmp_path, nowhere, adapter=str(run_folder))


def test_a_damaged_adapter_at_home_is_named(
    membership: CommunityFolder, tmp_path: Path, nowhere: Path
) -> None:
    source = found(tmp_path, nowhere).source
    record = membership.version()
    assert record is not None
    path = membership.adapter(record)
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(NomoatError, match="delete it to fetch it again"):
        source.load("community")
    path.unlink()
    with pytest.raises(NomoatError, match="the next round fetches it"):
        source.load("community")
