"""The adapter as a folder in PEFT's format, read and written without torch."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nomoat.aggregation.errors import BadData, LocalProtocolError
from nomoat.aggregation.protocol.adapter import LORA_A, LORA_B, Adapter, AdapterSpec, LayerSpec
from nomoat.storage.atomic import replacing_folder
from nomoat.storage.tensor_file import TensorFile

WEIGHTS_FILE = "adapter_model.safetensors"
CONFIG_FILE = "adapter_config.json"
REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")  # on the hub


def save_folder(
    adapter: Adapter, base_model_name: str, folder: Path, card: str, base_hash: bytes
) -> None:
    """Write weights, configuration and README.md so that plain PEFT loads them.

    The same adapter gives the same bytes. The folder appears whole or not at all.
    """
    config = _config(adapter.spec, base_model_name)
    with replacing_folder(folder) as fresh:
        (fresh / WEIGHTS_FILE).write_bytes(_safetensors(adapter, base_hash))
        text = json.dumps(config, indent=2, sort_keys=True, ensure_ascii=False)
        (fresh / CONFIG_FILE).write_text(text + "\n", encoding="utf-8")
        (fresh / "README.md").write_text(_with_front_matter(card, base_model_name), "utf-8")


def load_folder(folder: Path) -> Adapter:
    """The adapter in a PEFT folder; BadData if it is not plain LoRA of one rank, or is broken."""
    config = _read_config(folder)
    tensors = dict(TensorFile.open(folder / WEIGHTS_FILE))
    try:
        spec = _spec(config, tensors)
        return Adapter(spec, spec.manifest.join(tensors))
    except (LocalProtocolError, KeyError) as problem:
        raise BadData(f"{folder} is not an adapter this program can use: {problem}") from None


def _config(spec: AdapterSpec, base_model_name: str) -> dict[str, Any]:
    alpha = int(spec.alpha) if spec.alpha == int(spec.alpha) else spec.alpha
    return {
        "base_model_name_or_path": base_model_name,
        "bias": "none",
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": alpha,
        "lora_dropout": 0.0,
        "modules_to_save": None,
        "peft_type": "LORA",
        "r": spec.rank,
        "target_modules": list(spec.target_modules),
        "task_type": "CAUSAL_LM",
        "use_dora": False,
        "use_rslora": spec.rslora,
    }


def _safetensors(adapter: Adapter, base_hash: bytes) -> bytes:
    """The file's bytes: header length, header, values, in the order of the flat vector.

    Written here because the library orders metadata by chance, and equal adapters must be equal
    files. Format: https://huggingface.co/docs/safetensors.
    """
    metadata = {"format": "pt", "nomoat_adapter": adapter.digest.hex()}
    header: dict[str, Any] = {"__metadata__": {**metadata, "nomoat_base": base_hash.hex()}}
    start = 0
    for tensor in adapter.spec.manifest.tensors:
        place = [start, start + 4 * tensor.size]
        header[tensor.name] = {"dtype": "F32", "shape": tensor.shape, "data_offsets": place}
        start = place[1]
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    values = np.ascontiguousarray(adapter.vector, "<f4").tobytes()
    return len(text).to_bytes(8, "little") + text + values


def _with_front_matter(card: str, base_model_name: str) -> str:
    if card.startswith("---\n"):
        return card
    # The hub refuses a card whose base_model is no id of its own, such as a folder's name.
    linked = f'base_model: "{base_model_name}"\n' if REPOSITORY.fullmatch(base_model_name) else ""
    return (
        f"---\nlibrary_name: peft\n{linked}pipeline_tag: text-generation\n"
        f"tags:\n- lora\n- federated-learning\n- nomoat\n---\n\n{card}"
    )


def _read_config(folder: Path) -> dict[str, Any]:
    file = folder / CONFIG_FILE
    try:
        config = json.loads(file.read_bytes())
    except OSError as problem:
        raise BadData(
            f"{folder} is not an adapter folder: {CONFIG_FILE}: {problem.strerror}"
        ) from None
    except (ValueError, RecursionError):
        raise BadData(f"{file} is not valid JSON") from None
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        raise BadData(f"{file} does not describe a LoRA adapter")
    odd = ("use_dora", "modules_to_save", "rank_pattern", "alpha_pattern", "lora_bias")
    for key in odd:
        if config.get(key):
            raise BadData(f"{file}: adapters with {key} are not plain LoRA and cannot be used here")
    return config


def _spec(config: dict[str, Any], tensors: dict[str, NDArray[np.float32]]) -> AdapterSpec:
    rank, alpha, targets = config["r"], config["lora_alpha"], config["target_modules"]
    if type(rank) is not int or not isinstance(alpha, int | float) or rank < 1:
        raise LocalProtocolError("r and lora_alpha must be positive numbers")
    for name, tensor in tensors.items():
        twin = (
            name.replace(LORA_A, LORA_B) if name.endswith(LORA_A) else name.replace(LORA_B, LORA_A)
        )
        if not name.endswith((LORA_A, LORA_B)) or tensor.ndim != 2 or twin not in tensors:
            raise LocalProtocolError(f"{name} is not one of the two factors of a layer")
    layers = [
        LayerSpec(layer, tensors[layer + LORA_B].shape[0], tensors[layer + LORA_A].shape[1], rank)
        for layer in (name.removesuffix(LORA_A) for name in tensors if name.endswith(LORA_A))
    ]
    layers.sort(key=lambda layer: layer.name)
    names = (targets,) if isinstance(targets, str) else tuple(sorted(map(str, targets)))
    return AdapterSpec(tuple(layers), rank, float(alpha), bool(config.get("use_rslora")), names)
