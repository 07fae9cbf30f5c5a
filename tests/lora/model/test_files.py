"""A base model is found, refused in one line, or named by what it computes; without torch."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nomoat.aggregation.errors import BadData, UsageError
from nomoat.lora.model.base_model import load
from nomoat.lora.model.files import content_hash, resolve


@pytest.fixture
def copy(model_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(model_folder, tmp_path / "copy"))


def _edit_config(folder: Path, **changes: Any) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def test_a_copy_has_the_same_hash_whatever_saved_it(copy: Path, model_folder: Path) -> None:
    _edit_config(copy, transformers_version="9.9", _name_or_path="elsewhere", use_cache=False)
    (copy / "README.md").write_text("notes")
    assert content_hash(copy) == content_hash(model_folder)


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_one_changed_byte_changes_the_hash(copy: Path, model_folder: Path, name: str) -> None:
    data = bytearray((copy / name).read_bytes())
    data[-1] ^= 1
    (copy / name).write_bytes(data)
    assert content_hash(copy) != content_hash(model_folder)


def test_a_setting_that_changes_the_computation_changes_the_hash(
    copy: Path, model_folder: Path
) -> None:
    _edit_config(copy, rms_norm_eps=1e-3)
    assert content_hash(copy) != content_hash(model_folder)


def test_hash_and_initial_adapter_need_no_torch(model_folder: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "import nomoat.lora.model.base_model as b, nomoat.lora.workers.pool\n"
        "import nomoat.lora.data.reading, nomoat.lora.model.adapter_folder\n"
        "import nomoat.lora.data.encoding\n"
        "from nomoat.aggregation.protocol.adapter import AdapterSpec, LayerSpec\n"
        f"b.content_hash(Path({str(model_folder)!r}))\n"
        "b.initial_adapter(AdapterSpec((LayerSpec('x', 3, 4, 2),), 2, 4.0), b's')\n"
        "assert not {'torch', 'transformers', 'peft', 'pyarrow'} & sys.modules.keys()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_missing_folder_and_folders_without_parts_are_named(copy: Path, tmp_path: Path) -> None:
    with pytest.raises(BadData, match=r"there is no model folder \./nowhere"):
        resolve("./nowhere")
    with pytest.raises(BadData, match=r"has no config\.json"):
        resolve(str(tmp_path))
    with pytest.raises(BadData, match="is a file"):
        resolve(str(copy / "config.json"))
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    with pytest.raises(BadData, match=r"holds no weights .*convert its weights to safetensors"):
        resolve(str(copy))
    (copy / "config.json").write_text("{")
    with pytest.raises(BadData, match=r"config\.json is not valid JSON"):
        resolve(str(copy))
    (copy / "config.json").write_text("{}")
    with pytest.raises(BadData, match="names no model_type"):
        resolve(str(copy))


def test_a_hub_id_that_cannot_be_fetched_is_one_line(tmp_path: Path) -> None:
    code = (
        "from nomoat.lora.model.files import resolve\n"
        "from nomoat.aggregation.errors import BadData\n"
        "try: resolve('someone/some-model')\n"
        "except BadData as e: print(e)\n"
    )
    environment = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "PATH": ""}
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environment
    )
    assert done.stdout.startswith("someone/some-model is neither a folder here nor a model")
    assert done.stdout.count("\n") == 1


def test_loading_refuses_what_is_no_causal_language_model(copy: Path) -> None:
    _edit_config(copy, model_type="vit", architectures=["ViTModel"])
    with pytest.raises(BadData, match=r"\(vit\) is not a causal language model"):
        load(str(copy), "cpu")
    _edit_config(copy, model_type="no-such-model")
    with pytest.raises(BadData, match="cannot be loaded"):
        load(str(copy), "cpu")


def test_loading_refuses_weights_that_are_cut_off_or_of_another_model(copy: Path) -> None:
    whole = (copy / "model.safetensors").read_bytes()
    (copy / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BadData, match="cannot be loaded") as refusal:
        load(str(copy), "cpu")
    assert "\n" not in str(refusal.value)
    (copy / "model.safetensors").write_bytes(whole)
    _edit_config(copy, num_hidden_layers=3)
    with pytest.raises(BadData, match=r"the weights in .* lack model\.layers\.2\."):
        load(str(copy), "cpu")


def test_loading_refuses_a_tokenizer_larger_than_the_model(
    copy: Path, make_tokenizer: Callable[..., Any]
) -> None:
    tokenizer = make_tokenizer()
    tokenizer.add_tokens([f"<extra{n}>" for n in range(40)])
    tokenizer.save_pretrained(copy)
    with pytest.raises(BadData, match="the model only 320 tokens"):
        load(str(copy), "cpu")


def test_a_loaded_base_is_frozen_float32_and_knows_its_hash(base: Any, model_folder: Path) -> None:
    import torch

    assert {p.dtype for p in base.model.parameters()} == {torch.float32}
    assert base.base_hash == content_hash(model_folder)


def test_unknown_devices_and_types_are_refused(model_folder: Path) -> None:
    with pytest.raises(UsageError, match="'abacus' is no device"):
        load(str(model_folder), "abacus")
    with pytest.raises(UsageError, match="int8 is no floating point type"):
        load(str(model_folder), "cpu", "int8")
