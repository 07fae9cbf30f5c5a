"""The model that is shipped: what its card and its folder claim."""

import csv
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from nomoat.simulations import pocket
from nomoat.simulations.pocket import MODEL_DIR
from nomoat.simulations.pocket.packages import read_list


@pytest.fixture(scope="module")
def card() -> str:
    return (MODEL_DIR / "README.md").read_text(encoding="utf-8")


def test_the_folder_is_small() -> None:
    assert sum(file.stat().st_size for file in MODEL_DIR.iterdir()) <= 4_000_000


def test_the_model_loads_in_float32_and_writes_a_docstring() -> None:
    tokenizer = AutoTokenizer.from_pretrained(MODEL_DIR)
    model = AutoModelForCausalLM.from_pretrained(MODEL_DIR, dtype=torch.float32)
    assert model.dtype == torch.float32
    assert 1.3e6 < model.num_parameters() < 1.7e6
    assert (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id) == (0, 1, 2)
    assert tokenizer.chat_template is None
    prompt = [1, *tokenizer.encode("Queue.close(self)\n", add_special_tokens=False)]
    written = model.generate(
        torch.tensor([prompt]), max_new_tokens=48, do_sample=False, pad_token_id=0, eos_token_id=2
    )[0]
    assert written[-1] == 2
    assert len(tokenizer.decode(written[len(prompt) : -1])) > 10


def test_the_loss_curve_falls(card: str) -> None:
    with (MODEL_DIR / "loss.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    held_out = [float(row["held_out_loss"]) for row in rows]
    assert held_out[-1] == min(held_out) < held_out[0] - 0.3
    assert float(rows[-1]["train_loss"]) < float(rows[0]["train_loss"])
    assert f"| final held-out loss | {held_out[-1]:.3f} nats" in card
    assert f"| steps | {rows[-1]['step']} |" in card


def test_the_card_names_the_seed_and_every_package_with_its_licence(card: str) -> None:
    assert "| seed | 0 |" in card
    for requirement in read_list(Path(pocket.__file__).parent / "packages.txt"):
        name, version = requirement.split("==")
        row = next(line for line in card.splitlines() if line.startswith(f"| {name} |"))
        _, _, stated_version, licence, docstrings, _ = (cell.strip() for cell in row.split("|"))
        assert stated_version == version
        assert any(word in licence for word in ("BSD", "MIT", "Apache", "PSF", "Python Software"))
        assert int(docstrings) >= 0
