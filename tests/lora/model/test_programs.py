"""No model folder runs code: what could run is refused by name, and nobody is asked about it."""

from __future__ import annotations

import ast
import functools
import json
import os
import pickle
import pty
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from nomoat.aggregation.errors import BadData
from nomoat.lora.model.base_model import load, load_tokenizer
from nomoat.lora.model.files import content_hash, resolve

REPOSITORY = Path(__file__).parents[3]
ROOMS = (
    "storage", "flower", "lora", "client", "server", "simulations", "serving", "front_door",
)  # fmt: skip
CANARY = "from pathlib import Path\nPath({!r}).write_text('ran')\n"


@pytest.fixture
def folder(model_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(model_folder, tmp_path / "base"))


def edit(file: Path, **changes: Any) -> None:
    known = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps({**known, **changes}))


@pytest.mark.parametrize(
    "name",
    ["modeling_x.py", "deep/er/custom.PY", "kernel.so", "x.pyc", "pytorch_model.bin", "a/opt.pt",
     "rng.pth", "x.ckpt", "tokens.pkl", "x.pickle", "x.joblib"],
)  # fmt: skip
def test_a_folder_with_a_program_or_a_pickle_is_refused_by_its_name(
    folder: Path, name: str
) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(pickle.dumps({}))
    for use in (resolve, lambda text: content_hash(Path(text)), load):
        with pytest.raises(BadData, match=r"is a (program|pickle)") as refusal:
            use(str(folder))
        assert Path(name).name in str(refusal.value)
        assert "\n" not in str(refusal.value)


def test_what_git_and_caches_keep_beside_a_model_is_no_program_of_it(folder: Path) -> None:
    (folder / ".git").mkdir()
    (folder / ".git" / "hook.py").write_text("")
    assert resolve(str(folder)) == folder


def custom(folder: Path, canary: Path) -> None:
    """Make it a model of a kind that only its own code, elsewhere, knows."""
    elsewhere = folder.parent / "elsewhere"
    elsewhere.mkdir()
    for name in ("modeling_x.py", "configuration_x.py", "tokenization_x.py"):
        (elsewhere / name).write_text(CANARY.format(str(canary)))
    edit(
        folder / "config.json",
        model_type="no-such-kind",
        auto_map={
            "AutoConfig": f"{elsewhere}--configuration_x.XConfig",
            "AutoModelForCausalLM": f"{elsewhere}--modeling_x.X",
        },
    )


def test_a_model_that_needs_its_own_code_is_refused_and_the_code_not_run(
    folder: Path, tmp_path: Path
) -> None:
    custom(folder, tmp_path / "canary")
    with pytest.raises(BadData, match="runs no code from a model's folder"):
        load(str(folder), "cpu")
    assert not (tmp_path / "canary").exists()


def test_a_tokenizer_that_needs_its_own_code_is_refused(folder: Path, tmp_path: Path) -> None:
    custom(folder, tmp_path / "canary")
    edit(
        folder / "tokenizer_config.json",
        tokenizer_class="NoSuchTokenizer",
        auto_map={"AutoTokenizer": ["no--t.T", "no--t.T"]},
    )
    with pytest.raises(BadData, match="the tokenizer in"):
        load_tokenizer(str(folder))
    assert not (tmp_path / "canary").exists()


def test_a_known_kind_is_loaded_by_this_installations_code_whatever_auto_map_says(
    folder: Path, tmp_path: Path
) -> None:
    edit(folder / "config.json", auto_map={"AutoModelForCausalLM": "evil--modeling.Evil"})
    assert type(load(str(folder), "cpu").model).__name__ == "LlamaForCausalLM"


@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation"])
def test_a_kernel_of_the_hub_is_not_fetched(folder: Path, key: str) -> None:
    edit(folder / "config.json", **{key: "someone/evil-kernel"})
    with pytest.raises(BadData, match="names code on the Hub"):
        load(str(folder), "cpu")


def test_an_adapters_folder_is_no_base(folder: Path) -> None:
    edit(folder / "adapter_config.json", base_model_name_or_path="/somewhere/else")
    with pytest.raises(BadData, match="is an adapter on top of a base model"):
        load(str(folder), "cpu")


def test_on_a_terminal_nothing_is_asked_and_a_yes_runs_nothing(
    folder: Path, tmp_path: Path
) -> None:
    canary = tmp_path / "canary"
    custom(folder, canary)
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "a", "response": "b"}\n')
    parent, terminal = pty.openpty()
    os.write(parent, b"y\ny\ny\n")
    what = ("data", "preview", str(rows), "--model", str(folder))
    done = subprocess.run(
        [sys.executable, "-P", "-m", "nomoat", *what],
        stdin=terminal,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    os.close(parent)
    os.close(terminal)
    assert "[y/N]" not in done.stdout + done.stderr
    assert not canary.exists()


@functools.cache
def all_calls() -> list[tuple[Path, str, ast.Call]]:
    """Every call in the product: its file, the function's name, the call."""
    files = [file for room in ROOMS for file in sorted((REPOSITORY / room).rglob("*.py"))]
    return [
        (file, ast.unparse(node.func), node)
        for file in files
        for node in ast.walk(ast.parse(file.read_text("utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    ]


def calls(name: str) -> list[tuple[Path, ast.Call]]:
    """Every call of a function of this name, of two words, in the product."""
    return [(file, call) for file, called, call in all_calls() if called.endswith(name)]


@pytest.mark.parametrize("name", ["subprocess.run", "subprocess.Popen", "subprocess.check_output"])
def test_no_child_process_inherits_the_terminal(name: str) -> None:
    for file, call in calls(name):
        assert any(word.arg == "stdin" for word in call.keywords), f"{file}:{call.lineno}"


@pytest.mark.parametrize(
    "name",
    [f"Auto{kind}.{how}" for kind in ("Config", "Tokenizer", "ModelForCausalLM")
     for how in ("from_pretrained", "from_config")],
)  # fmt: skip
def test_transformers_is_always_told_to_run_no_code(name: str) -> None:
    for file, call in calls(name):
        told = {word.arg: ast.unparse(word.value) for word in call.keywords}
        assert told.get("trust_remote_code") == "False", f"{file}:{call.lineno}"
