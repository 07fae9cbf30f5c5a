"""A language model and data small enough for whole federations in a test; made without torch."""

from __future__ import annotations

import json
import os
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
# What tests start keeps its byte code, as a user's does: a tenth of each start.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

import hypothesis
import numpy as np
import pytest

from nomoat.server.community.folder import Folder
from nomoat.server.engines import place as places
from nomoat.server.engines.place import Place
from postgres import Server, made

# A core that does other things, too, is no reason to fail.
hypothesis.settings.register_profile("any core", deadline=None)
hypothesis.settings.load_profile("any core")

TINY_LAYERS, TINY_WIDTH, TINY_INNER = 2, 32, 48


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files whose tests may take longest: none is left for one core at the end."""
    longest: dict[Path, float] = defaultdict(float)
    for item in items:
        if (limit := item.get_closest_marker("timeout")) is not None:
            longest[item.path] = max(longest[item.path], float(limit.args[0]))
    items.sort(key=lambda item: -longest[item.path])


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of two layers with random weights and the pocket model's tokenizer."""
    from safetensors.numpy import save_file

    from nomoat.simulations.pocket import MODEL_DIR

    folder = tmp_path_factory.mktemp("tiny") / "model"
    folder.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(MODEL_DIR / name, folder / name)
    config = json.loads((MODEL_DIR / "config.json").read_text())
    config |= {
        "hidden_size": TINY_WIDTH,
        "intermediate_size": TINY_INNER,
        "num_hidden_layers": TINY_LAYERS,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "head_dim": TINY_WIDTH // 4,
        "dtype": "float32",
    }
    (folder / "config.json").write_text(json.dumps(config))
    rng = np.random.default_rng(0)

    def drawn(*shape: int) -> np.ndarray:
        return (rng.standard_normal(shape) * 0.2).astype(np.float32)

    weights = {"model.embed_tokens.weight": drawn(config["vocab_size"], TINY_WIDTH)}
    for layer in range(TINY_LAYERS):
        place = f"model.layers.{layer}."
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            weights[f"{place}self_attn.{name}.weight"] = drawn(TINY_WIDTH, TINY_WIDTH)
        for name in ("gate_proj", "up_proj"):
            weights[f"{place}mlp.{name}.weight"] = drawn(TINY_INNER, TINY_WIDTH)
        weights[f"{place}mlp.down_proj.weight"] = drawn(TINY_WIDTH, TINY_INNER)
        for name in ("input_layernorm", "post_attention_layernorm"):
            weights[f"{place}{name}.weight"] = np.ones(TINY_WIDTH, np.float32)
    weights["model.norm.weight"] = np.ones(TINY_WIDTH, np.float32)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty rows of four topics, each with words of its own."""
    words = {
        "mail": "letter inbox sender reply",
        "files": "folder path name size",
        "numbers": "sum mean root digit",
        "tasks": "loop wait cancel done",
    }
    rows = []
    for i in range(15):
        for topic, some in words.items():
            chosen = some.split()
            answer = f"The {chosen[i % 4]} of a {chosen[(i * 3 + 1) % 4]} " + "very " * (i % 3)
            row = {"prompt": f"What is {chosen[i % 4]} {i}?", "completion": answer + "well."}
            rows.append(row | {"topic": topic})
    file = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """A PostgreSQL server; the test is skipped where none is installed."""
    server = made()
    yield server
    server.stop()


@pytest.fixture(params=["sqlite", "postgresql"])
def records(request: pytest.FixtureRequest) -> Callable[[Path], Place]:
    """Folder of a community → the place of its records, in each engine that there is.

    Those in PostgreSQL are named by the folder, as those of a real one are.
    """
    if request.param == "sqlite":
        return lambda folder: folder / "community.db"
    server: Server = request.getfixturevalue("postgres")

    def place(folder: Path) -> Place:
        at = Folder(folder)
        if not at.address.exists():
            places.name(at.address, server.schema())
        return at.place

    return place
