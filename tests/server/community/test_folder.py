"""A community's folder holds what it should, keeps its secrets, and says what is wrong with it."""

from __future__ import annotations

import datetime
import os
import stat
from pathlib import Path

import pytest

from nomoat.aggregation.errors import NomoatError, RemoteProtocolError, UsageError
from nomoat.aggregation.methods.server_optimizer import ServerOptimizer
from nomoat.aggregation.protocol.enrolment import check_info
from nomoat.aggregation.protocol.signing import SigningKey
from nomoat.server.community import certificates
from nomoat.server.community.folder import Folder, create, describe, renew_certificate
from nomoat.server.community.settings import (
    BaseModelSettings,
    CommunityRoundSettings,
    CommunitySettings,
    ServerSettings,
    Settings,
)

NOW = datetime.datetime.now(datetime.UTC)


def settings(**changes: object) -> Settings:
    return Settings(
        community=CommunitySettings(name="Shakespeare", about='says "hi" # not a comment'),
        base=BaseModelSettings(model="pocket", folder=Path("m"), hash="ab" * 32, bytes=5),
        rounds=CommunityRoundSettings(seed="cd" * 32, min_volunteers=3),
        server=ServerSettings(address="train.example.org:9000", port=9000),
        **changes,  # type: ignore[arg-type]
    )


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    made = Folder(tmp_path / "c")
    create(made, settings(), NOW, b"\7" * 32)
    return made


def test_what_was_written_is_read_back(folder: Folder) -> None:
    assert folder.load().model_dump() == settings().model_dump()
    assert folder.key().public == SigningKey(b"\7" * 32).public
    assert "# " in folder.settings.read_text()


def test_secrets_are_for_their_owner_alone(folder: Folder) -> None:
    for path in (folder.community_key, folder.authority_key, folder.server_key):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    os.chmod(folder.community_key, 0o644)
    with pytest.raises(NomoatError, match=r"readable by others .*chmod 600"):
        folder.key()


@pytest.mark.parametrize("name", ["community", "authority", "server"])
def test_a_community_does_not_open_with_a_key_that_others_can_read(
    folder: Folder, name: str
) -> None:
    folder.check_keys()
    path = folder.root / "keys" / f"{name}.key"
    os.chmod(path, 0o640)
    with pytest.raises(NomoatError, match=rf"{name} key .*readable by others .*chmod 600"):
        folder.check_keys()
    path.unlink()
    with pytest.raises(NomoatError, match=rf"{name} key .* is missing"):
        folder.check_keys()


def test_an_existing_community_is_never_overwritten(folder: Folder) -> None:
    before = folder.community_key.read_bytes()
    with pytest.raises(NomoatError, match="already"):
        create(folder, settings(), NOW, b"\x08" * 32)
    folder.settings.unlink()  # even if only its keys are left
    with pytest.raises(NomoatError, match="already"):
        create(folder, settings(), NOW, b"\x08" * 32)
    assert folder.community_key.read_bytes() == before


def test_flags_go_before_environment_before_file(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert folder.load().rounds.min_volunteers == 3
    monkeypatch.setenv("NOMOAT_ROUNDS__MIN_VOLUNTEERS", "5")
    monkeypatch.setenv("NOMOAT_HOME", "/nowhere")  # not ours, no complaint
    assert folder.load().rounds.min_volunteers == 5
    assert folder.load(rounds={"min_volunteers": 7}).rounds.min_volunteers == 7
    assert folder.load().rounds.seed == "cd" * 32  # the rest of the table stays


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("min_volunteers = 3", "min_volunteers = 1", "rounds.min_volunteers"),
        ("min_volunteers = 3", "min_volunters = 3", "rounds.min_volunters"),
        ("min_volunteers = 3", "min_volunteers = = 3", "line"),
        ("port = 9000", "port = 99999", "server.port"),
        ('admission = "open"', 'admission = "maybe"', "community.admission"),
    ],
)
def test_a_wrong_setting_is_named_with_its_file(
    folder: Folder, old: str, new: str, words: str
) -> None:
    text = folder.settings.read_text()
    assert old in text
    folder.settings.write_text(text.replace(old, new))
    with pytest.raises(UsageError, match=words) as caught:
        folder.load()
    assert str(folder.settings) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_without_a_community_says_so(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nomoat init"):
        Folder(tmp_path).load()


def test_a_certificate_is_renewed_before_it_ends_or_when_a_name_is_new(folder: Folder) -> None:
    loaded = folder.load()
    assert renew_certificate(folder, loaded, NOW) is None
    later = NOW + datetime.timedelta(days=800)
    assert "ends" in (renew_certificate(folder, loaded, later) or "")
    assert certificates.expires(folder.server_certificate.read_bytes()) > later
    moved = folder.load(server={"address": "new.example.org:1"})
    assert "new.example.org" in (renew_certificate(folder, moved, later) or "")
    assert "new.example.org" in certificates.hosts_of(folder.server_certificate.read_bytes())


def test_a_certificate_issued_while_the_clock_was_ahead_is_issued_again(folder: Folder) -> None:
    loaded, ahead = folder.load(), NOW + datetime.timedelta(days=800)
    assert renew_certificate(folder, loaded, ahead) is not None
    assert "it begins 20" in (renew_certificate(folder, loaded, NOW) or "")
    assert certificates.begins(folder.server_certificate.read_bytes()) < NOW
    assert renew_certificate(folder, loaded, NOW) is None


def test_a_community_describes_itself_under_its_own_key(folder: Folder) -> None:
    key = folder.key()
    authority = folder.authority_certificate.read_bytes()
    info = describe(folder.load(), key, authority, 1234)(1_800_000_000)
    assert check_info(info, key.public).adapter_values == 1234
    with pytest.raises(RemoteProtocolError):
        check_info(info, SigningKey(b"\x08" * 32).public)


def test_how_adapters_are_aggregated_is_read_from_the_file(folder: Folder) -> None:
    text = folder.settings.read_text()
    changes = {
        'server_optimizer = "plain"': 'server_optimizer = "fedadam"',
        'lr_schedule = "constant"': 'lr_schedule = "cosine"',
        'optimizer_state = "reset"': 'optimizer_state = "keep"',
        "prox = 0.0": "prox = 0.5",
        'personal = "none"': 'personal = "adapter"',
    }
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    folder.settings.write_text(text)
    found = folder.load().federation()
    assert found.optimizer == ServerOptimizer("fedadam", 0.01)
    assert found.schedule == "cosine"
    training = found.training
    assert (training.prox, training.keep_moments, training.personal) == (0.5, True, "adapter")
    assert found.method == "fedavg"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('method = "fedavg"', 'method = "flora"', "flora cannot do secure aggregation"),
        ('optimizer_state = "reset"', 'optimizer_state = "sometimes"', "training.optimizer_state"),
        ("prox = 0.0", "prox = -1.0", "training.prox"),
        ("server_beta1 = 0.9", "server_beta1 = 0.5", "no effect with plain"),
    ],
)
def test_what_does_not_go_together_is_one_line(
    folder: Folder, old: str, new: str, words: str
) -> None:
    text = folder.settings.read_text()
    assert old in text
    folder.settings.write_text(text.replace(old, new))
    with pytest.raises(UsageError, match=words):
        folder.load().federation()


def test_local_b_runs_as_the_method_it_is(folder: Folder) -> None:
    text = folder.settings.read_text().replace('personal = "none"', 'personal = "local-B"')
    folder.settings.write_text(text)
    loaded = folder.load()
    assert loaded.federation().method == "local-B"
    info = describe(loaded, folder.key(), folder.authority_certificate.read_bytes(), 1)(0)
    assert info.method == "local-B"  # what volunteers preview their reports by
