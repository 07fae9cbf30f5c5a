"""A GGUF file is a base like any other, under a name and a hash of its own."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nomoat.aggregation.errors import BadData
from nomoat.lora.model.bases.gguf_file import convert, dequantised
from nomoat.lora.model.files import content_hash, resolve

pytest.importorskip("gguf")


@pytest.fixture(scope="module")
def gguf_file(
    tmp_path_factory: pytest.TempPathFactory,
    model_folder: Path,
    make_tokenizer: Callable[..., Any],
) -> Path:
    """The tiny model in eight bits."""
    from nomoat.lora.export.llama_cpp.files import Named, WholeModel, write_model
    from nomoat.lora.export.llama_cpp.layout import TensorLayout
    from nomoat.lora.export.llama_cpp.vocabulary import Vocabulary
    from nomoat.lora.export.turns import PLAIN
    from nomoat.lora.export.weights import BaseWeights
    from nomoat.lora.model.files import config

    file = tmp_path_factory.mktemp("gguf") / "tiny model.gguf"
    sizes = config(model_folder)
    vocabulary = Vocabulary.of(make_tokenizer(None), sizes["vocab_size"], ())
    weights = BaseWeights.open(model_folder)
    whole = WholeModel(TensorLayout.of(sizes), vocabulary, weights, PLAIN)
    write_model(file, whole, "q8_0", Named("tiny", "tiny", bytes(32)))
    return file


def test_a_gguf_file_becomes_a_folder_once_and_computes_what_it_holds(
    gguf_file: Path, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nomoat.storage.tensor_file import TensorFile

    folder = dequantised(gguf_file, tmp_path)
    assert folder.name.startswith("tiny-model-dequantised-")
    assert "tiny model.gguf" in (folder / "SOURCE.md").read_text()
    assert content_hash(folder) != content_hash(model_folder)  # another base, said plainly
    before, after = (
        TensorFile.open(place / "model.safetensors") for place in (model_folder, folder)
    )
    name = "model.layers.1.self_attn.q_proj.weight"
    values, original = after.read(name), before.read(name)
    assert after.dtype(name) == "F16"
    step = np.abs(original).max() / 127
    np.testing.assert_allclose(values, original, atol=step)
    assert not np.array_equal(values, original)

    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("made a second time")

    monkeypatch.setattr("nomoat.lora.model.bases.gguf_file.subprocess.run", never)
    assert dequantised(gguf_file, tmp_path) == folder


def test_what_is_no_gguf_model_leaves_nothing(
    gguf_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def here(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        """Convert in this process, which has torch already."""
        try:
            convert(Path(command[-2]), Path(command[-1]))
        except Exception as problem:  # noqa: BLE001 - as a process would end
            return subprocess.CompletedProcess(command, 1, "", f"{type(problem)}: {problem}\n")
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr("nomoat.lora.model.bases.gguf_file.subprocess.run", here)
    for data, said in ((b"no", "no GGUF file"), (gguf_file.read_bytes()[:2000], "cannot be made")):
        broken = tmp_path / "broken.gguf"
        broken.write_bytes(data)
        with pytest.raises(BadData, match=said):
            dequantised(broken, tmp_path / "bases")
    assert not list((tmp_path / "bases").glob("*"))
    other = tmp_path / "model.bin"
    other.write_bytes(b"x")
    with pytest.raises(BadData, match=r"is a file; .* or \.gguf"):
        resolve(str(other))
