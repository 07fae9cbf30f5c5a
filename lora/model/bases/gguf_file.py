"""A GGUF file as a base model: dequantised once, into a folder that is then like any other.

What is trained on are the numbers in the file, in float16. The published weights it was made of
are another base: an adapter of one is not an adapter of the other, and their hashes differ.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import platformdirs

from nomoat.aggregation.errors import BadData, UsageError
from nomoat.storage.atomic import replacing_folder

MAGIC: Final = b"GGUF"
INSTALL: Final = "a GGUF file as base needs two packages more: pip install gguf xllamacpp"
CHUNK_BYTES: Final = 1 << 20


def dequantised(file: Path, cache: Path | None = None) -> Path:
    """The folder made of a GGUF file: named by the file's content, made if it is not there yet.

    BadData if it is no model that transformers reads from GGUF, UsageError if gguf is missing.
    """
    digest = _digest(file)
    folder = place_of(file.stem, digest, cache)
    if (folder / "config.json").is_file():
        return folder
    with replacing_folder(folder) as fresh:
        # A process of its own: whoever asks for a folder has no torch, and shall have none.
        command = [sys.executable, "-P", "-m", "nomoat.lora.model.bases.gguf_file"]
        done = subprocess.run(
            [*command, str(file.resolve()), str(fresh)],
            check=False,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
        )
        if done.returncode != 0:
            _refuse(file, done.stderr)
        said = f"Dequantised to float16 from {file.name}, SHA-256 {digest}.\n"
        (fresh / "SOURCE.md").write_text(said, encoding="utf-8")
    return folder


def place_of(stem: str, digest: str, cache: Path | None = None) -> Path:
    """The folder in the cache for a GGUF file of this name and SHA-256, made or not."""
    root = cache or Path(platformdirs.user_cache_dir("nomoat")) / "bases"
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", stem)[:60]
    return root / f"{plain}-dequantised-{digest[:12]}"


def check_digest(file: Path, wanted: str) -> None:
    """Raise BadData unless the GGUF file has this SHA-256, in hex digits."""
    if _digest(file) != wanted:
        raise BadData(f"{file} is not the file that was meant: its SHA-256 is another")


def convert(file: Path, folder: Path) -> None:
    """Write the model and the tokenizer in a GGUF file as a Hugging Face folder, in float16."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    place: dict[str, Any] = {"gguf_file": file.name}
    tokenizer = AutoTokenizer.from_pretrained(file.parent, trust_remote_code=False, **place)
    model: Any = AutoModelForCausalLM.from_pretrained(
        file.parent,
        trust_remote_code=False,
        dtype=torch.float32,
        quantization_config=GgufConfig(dequantize=True),
        **place,
    )
    model.hf_quantizer, model.is_quantized = None, False
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.to(torch.float16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _digest(file: Path) -> str:
    hashed = hashlib.sha256()
    try:
        with file.open("rb") as opened:
            if opened.read(len(MAGIC)) != MAGIC:
                raise BadData(f"{file} is no GGUF file")
            opened.seek(0)
            while chunk := opened.read(CHUNK_BYTES):
                hashed.update(chunk)
    except OSError as problem:
        raise BadData(f"cannot read {file}: {problem.strerror}") from None
    return hashed.hexdigest()


def _refuse(file: Path, stderr: str) -> None:
    lines = [line for line in stderr.splitlines() if line.strip()]
    reason = " ".join(lines[-1].split())[:160] if lines else "it ended without a word"
    if "gguf" in reason and "install" in reason.lower():
        raise UsageError(INSTALL)
    raise BadData(f"{file} cannot be made a base model: {reason}")


if __name__ == "__main__":
    convert(Path(sys.argv[1]), Path(sys.argv[2]))
