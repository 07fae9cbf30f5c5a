"""A base model made on the spot: a small Llama with random weights and the pocket tokenizer.

    python -m deployed.model FOLDER

With the rank beside it, its adapter has about a million values; nothing is downloaded. It runs in
a process of its own, so that the benchmark imports no torch.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from nomoat.simulations.pocket import MODEL_DIR

RANK = 40
LAYERS, WIDTH, INNER, HEADS = 5, 256, 768, 4
# LoRA on all linear layers: A and B of 4 attention projections and 3 of the block behind them.
VALUES = RANK * LAYERS * (4 * 2 * WIDTH + 3 * (WIDTH + INNER))


def make(folder: Path, environment: Mapping[str, str]) -> Path:
    """Write the model to `folder`, in a process of its own."""
    command = [sys.executable, "-W", "ignore", "-m", "deployed.model", str(folder)]
    subprocess.run(command, env=dict(environment), check=True, stderr=subprocess.DEVNULL)
    return folder


def write(folder: Path) -> None:
    """Configuration, weights and tokenizer, as Hugging Face lays them out."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    pocket = json.loads((MODEL_DIR / "config.json").read_text())
    config = LlamaConfig(
        vocab_size=pocket["vocab_size"],
        hidden_size=WIDTH,
        intermediate_size=INNER,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        max_position_embeddings=256,
        bos_token_id=pocket["bos_token_id"],
        eos_token_id=pocket["eos_token_id"],
        pad_token_id=pocket.get("pad_token_id"),
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(MODEL_DIR / name, folder / name)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
