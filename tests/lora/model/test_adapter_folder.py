"""An adapter folder is PEFT's: it loads anywhere and does there what it did here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nomoat.aggregation.errors import BadData
from nomoat.aggregation.protocol.adapter import Adapter, AdapterSpec
from nomoat.lora.model.adapter_folder import CONFIG_FILE, WEIGHTS_FILE, load_folder, save_folder
from nomoat.lora.model.adapter_slot import swap

HASH = bytes(range(32))


@pytest.fixture
def adapter(spec: AdapterSpec) -> Adapter:
    rng = np.random.default_rng(5)
    return Adapter(spec, (rng.standard_normal(spec.size) * 0.1).astype(np.float32))


def _logits(model: Any) -> Any:
    import torch

    with torch.no_grad():
        return model.eval()(input_ids=torch.arange(10, 40).view(2, 15)).logits


def test_plain_peft_computes_the_same_logits(
    model: Any, adapter: Adapter, model_folder: Path, tmp_path: Path
) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    save_folder(adapter, str(model_folder), tmp_path / "adapter", "# Card\n", HASH)
    plain = AutoModelForCausalLM.from_pretrained(model_folder)
    of_base = _logits(plain)
    loaded = PeftModel.from_pretrained(plain, str(tmp_path / "adapter"))
    swap(model, adapter)
    assert torch.allclose(_logits(loaded), _logits(model), atol=1e-5, rtol=0)
    assert not torch.allclose(_logits(loaded), of_base, atol=1e-2)


def test_what_is_saved_is_loaded_equal(adapter: Adapter, tmp_path: Path) -> None:
    save_folder(adapter, "some/base", tmp_path / "a", "", HASH)
    loaded = load_folder(tmp_path / "a")
    assert loaded.spec == adapter.spec
    assert loaded.digest == adapter.digest


def test_the_same_adapter_gives_the_same_bytes(adapter: Adapter, tmp_path: Path) -> None:
    for name in "ab":
        save_folder(adapter, "some/base", tmp_path / name, "card", HASH)
    for file in (WEIGHTS_FILE, CONFIG_FILE, "README.md"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_the_safetensors_library_reads_weights_and_both_hashes(
    adapter: Adapter, tmp_path: Path
) -> None:
    from safetensors import safe_open

    save_folder(adapter, "some/base", tmp_path / "a", "", HASH)
    with safe_open(tmp_path / "a" / WEIGHTS_FILE, "np") as file:
        metadata = file.metadata()
        assert metadata["nomoat_base"] == HASH.hex()
        assert metadata["nomoat_adapter"] == adapter.digest.hex()
        read = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    assert np.array_equal(adapter.spec.manifest.join(read), adapter.vector)


def test_the_card_has_front_matter_and_keeps_its_own(adapter: Adapter, tmp_path: Path) -> None:
    save_folder(adapter, "some/base", tmp_path / "a", "# Title\n", HASH)
    card = (tmp_path / "a" / "README.md").read_text()
    assert card.startswith('---\nlibrary_name: peft\nbase_model: "some/base"\n')
    assert card.endswith("---\n\n# Title\n")
    save_folder(adapter, "some/base", tmp_path / "a", "---\nmine: 1\n---\n", HASH)
    assert (tmp_path / "a" / "README.md").read_text() == "---\nmine: 1\n---\n"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a"]


def test_the_card_links_no_base_that_the_hub_would_refuse(adapter: Adapter, tmp_path: Path) -> None:
    for name in ("a local model", "/home/me/model", "model"):
        save_folder(adapter, name, tmp_path / "a", "# Title\n", HASH)
        assert "base_model:" not in (tmp_path / "a" / "README.md").read_text()


def test_a_failed_save_leaves_the_old_folder(
    adapter: Adapter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_folder(adapter, "some/base", tmp_path / "a", "old", HASH)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(Exception, match=r"cannot write .*: No space left on device"):
        save_folder(adapter, "some/base", tmp_path / "a", "new", HASH)
    assert (tmp_path / "a" / "README.md").read_text().endswith("old")
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_adapters_of_others_are_read(
    adapter: Adapter, tmp_path: Path, dtype: str
) -> None:
    import torch
    from safetensors.torch import save_file

    save_folder(adapter, "some/base", tmp_path / "a", "", HASH)
    halves = {
        name: torch.from_numpy(value.copy()).to(getattr(torch, dtype))
        for name, value in adapter.spec.manifest.views(adapter.vector).items()
    }
    save_file(halves, tmp_path / "a" / WEIGHTS_FILE)
    expected = {name: value.float().numpy() for name, value in halves.items()}
    assert np.array_equal(load_folder(tmp_path / "a").vector, adapter.spec.manifest.join(expected))


def _config(**changes: Any) -> Any:
    def change(folder: Path) -> None:
        file = folder / CONFIG_FILE
        file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))

    return change


def _cut(folder: Path) -> None:
    file = folder / WEIGHTS_FILE
    file.write_bytes(file.read_bytes()[:-4])


def _huge_header(folder: Path) -> None:
    (folder / WEIGHTS_FILE).write_bytes(b"\xff" * 64)


def _renamed(folder: Path) -> None:
    file = folder / WEIGHTS_FILE
    file.write_bytes(
        file.read_bytes().replace(b"0.mlp.down_proj.lora_B", b"0.mlp.down_proj.lora_C")
    )


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / CONFIG_FILE).unlink(), r"is not an adapter folder: adapter_config\.json"),
        (lambda f: (f / CONFIG_FILE).write_text("{"), "is not valid JSON"),
        (lambda f: (f / WEIGHTS_FILE).unlink(), r"cannot read .*adapter_model\.safetensors"),
        (_config(peft_type="LOHA"), "does not describe a LoRA adapter"),
        (_config(use_dora=True), "adapters with use_dora are not plain LoRA"),
        (_config(modules_to_save=["lm_head"]), "adapters with modules_to_save"),
        (_config(rank_pattern={"q_proj": 2}), "adapters with rank_pattern"),
        (_config(r=3), r"has shape \(4, .*, not \(3,"),
        (_config(r="many"), "must be positive numbers"),
        (_cut, "does not match its shape"),
        (_huge_header, "header is cut off"),
        (_renamed, "is not one of the two factors of a layer"),
    ],
)
def test_what_is_no_plain_adapter_is_refused_in_one_line(
    adapter: Adapter, tmp_path: Path, spoil: Any, message: str
) -> None:
    folder = tmp_path / "a"
    save_folder(adapter, "some/base", folder, "", HASH)
    spoil(folder)
    with pytest.raises(BadData, match=message) as refusal:
        load_folder(folder)
    assert "\n" not in str(refusal.value)
