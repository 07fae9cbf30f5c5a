"""Files of a base model and their contents, found out without torch.

Weights are read as safetensors only: a pickle in a downloaded model would be a program.
"""

from __future__ import annotations

import hashlib
import json
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

from nomoat.aggregation.errors import BadData
from nomoat.lora.model.bases import pocket, smollm2
from nomoat.lora.model.programs import check_no_foreign_parts, check_no_program

WEIGHTS = "*.safetensors"
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
)
# What may differ between two copies of one model: none of it changes what the model computes.
COSMETIC_KEYS = ("_name_or_path", "transformers_version", "dtype", "torch_dtype", "use_cache")
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")
CHUNK_BYTES = 1 << 20
BUILT_IN = (pocket.NAME, smollm2.NAME)  # bases that every machine has, or fetches, by name
BY_NAME = " and ".join(BUILT_IN)


def resolve(path_or_hub_id: str) -> Path:
    """Return the local folder of a model; a hub id is fetched, or taken from the cache offline.

    `pocket` always means the one that comes with this package (`./pocket` is a folder), and
    `smollm2` is fetched as bases/smollm2.py says. Raises BadData if there is no such model, or if
    its folder is not a model's.
    """
    if path_or_hub_id == pocket.NAME:
        return checked(pocket.FOLDER)
    folder = Path(path_or_hub_id).expanduser()
    if folder.is_dir():
        return checked(folder)
    if folder.suffix == ".gguf" and folder.is_file():
        from nomoat.lora.model.bases.gguf_file import dequantised

        return checked(dequantised(folder))
    if path_or_hub_id == smollm2.NAME and not folder.exists():
        return checked(smollm2.made())
    if folder.exists():
        raise BadData(
            f"{path_or_hub_id} is a file; a model is a folder with config.json in it, or .gguf"
        )
    if not HUB_ID.fullmatch(path_or_hub_id):
        raise BadData(f"there is no model folder {path_or_hub_id}; by name there are {BY_NAME}")
    return checked(_fetched(path_or_hub_id))


def _fetched(hub_id: str) -> Path:
    from huggingface_hub import snapshot_download

    wanted = [WEIGHTS, "*.safetensors.index.json", "*config.json", *TOKENIZER_FILES]
    try:
        return Path(snapshot_download(hub_id, allow_patterns=wanted))
    except Exception as problem:  # a dozen types: offline, no such repository, no rights, no disk
        why = type(problem).__name__
        raise BadData(
            f"{hub_id} is neither a folder here nor a model the Hugging Face Hub gave ({why}); "
            "check the name and the connection, or download it and name its folder; "
            f"by name there are {BY_NAME}"
        ) from problem


def checked(folder: Path) -> Path:
    """Return `folder` if it holds config.json and safetensors and nothing that could run.

    Raises BadData, which says what is missing or has to go.
    """
    found = config(folder)
    if not any(folder.glob(WEIGHTS)):
        others = any(folder.glob("*.bin")) or any(folder.glob("*.pt")) or any(folder.glob("*.gguf"))
        hint = "; convert its weights to safetensors" if others else ""
        raise BadData(f"the model folder {folder} holds no weights (*.safetensors){hint}")
    check_no_program(folder)
    check_no_foreign_parts(folder, found)
    return folder


def config(folder: Path) -> dict[str, Any]:
    """The folder's config.json; BadData if it is missing or not a model's configuration."""
    file = folder / "config.json"
    try:
        found = json.loads(file.read_bytes())
    except FileNotFoundError:
        raise BadData(f"{folder} is not a model folder: it has no config.json") from None
    except OSError as problem:
        raise BadData(f"cannot read {file}: {problem.strerror}") from problem
    except (ValueError, RecursionError):
        raise BadData(f"{file} is not valid JSON") from None
    if not isinstance(found, dict) or not isinstance(found.get("model_type"), str):
        raise BadData(f"{file} names no model_type: it is not a language model's configuration")
    return found


def content_hash(folder: Path) -> bytes:
    """SHA-256 over what a base model computes with: configuration, weights and tokenizer.

    Over (name, size, SHA-256 of the content) of each file, in the order of their names; of the
    configuration only what changes the computation. Two volunteers with one hash train one model.
    A folder with programs or pickles in it has no hash: BadData.
    """
    checked(folder)
    names = {path.name for path in folder.glob(WEIGHTS)}
    names |= {name for name in TOKENIZER_FILES if (folder / name).is_file()}
    hashed = hashlib.sha256(b"nomoat base model v1\0")
    hashed.update(_config_digest(folder))
    for name in sorted(names):
        file = folder / name
        found = file.stat()
        digest = _file_digest(str(file), found.st_size, (found.st_mtime_ns, found.st_ctime_ns))
        hashed.update(f"{name}\0{found.st_size}\0".encode() + digest)
    return hashed.digest()


def check_unchanged(folder: Path, wanted: bytes) -> None:
    """Raise BadData unless the files of the base model still have the content hash `wanted`.

    Weights are mapped: a file that is written over changes the model that a process holds. Only
    files whose times have changed are read again.
    """
    if content_hash(folder) != wanted:
        raise BadData(
            f"the base model in {folder} is not the one that was agreed on: its files have "
            "changed; put them back, and nothing is lost"
        )


def _config_digest(folder: Path) -> bytes:
    kept = {key: value for key, value in config(folder).items() if key not in COSMETIC_KEYS}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).digest()


@lru_cache(maxsize=256)
def _file_digest(path: str, size: int, changed_ns: tuple[int, int]) -> bytes:
    hashed = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            hashed.update(chunk)
    return hashed.digest()


def stored_bytes(folder: Path) -> int:
    """Size of the weight files, which stay mapped while another dtype is made of them."""
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))
