"""Predicted against measured peak memory, one subprocess per case, random weights, no download.

    python benchmarks/memory.py [--cases small|all|NAME,NAME…] [--folder DIR] [--json]

On CPU the measure is the peak resident set (VmHWM, reset after imports), on CUDA the allocator's
peak. Each child loads a saved model as a volunteer would, adapts it with peft and trains STEPS
steps.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cards.shapes import config_of

from nomoat.lora.memory.prediction import TrainingShape, Weights, cpu_host, cuda_host, predict
from nomoat.lora.model.shape import ModelShape
from nomoat.server.heap import return_freed_memory

STEPS = 6


@dataclass(frozen=True, slots=True)
class Case:
    """One row of the table."""

    model: str
    training: TrainingShape
    tight: bool = False

    @property
    def name(self) -> str:
        """E.g. 100M-bf16-b4-t256-r8-ck."""
        t = self.training
        tail = ("-ck" if t.checkpointing else "") + ("-tight" if self.tight else "")
        kind = t.weights.name.lower()
        return f"{self.model}-{kind}-b{t.micro_batch}-t{t.seq_len}-r{t.rank}{tail}"


def cases() -> Iterator[Case]:
    """Sizes, dtypes, checkpointing and batch shapes; the large ones last."""
    for model, batch, seq in (("10M", 4, 256), ("10M", 1, 512), ("100M", 2, 256), ("100M", 4, 128)):
        for weights in (Weights.FP32, Weights.BF16):
            for checkpointing in (False, True):
                yield Case(
                    model,
                    TrainingShape(batch, seq, 8, weights=weights, checkpointing=checkpointing),
                )
    yield Case("100M", TrainingShape(1, 512, 16, ("q_proj", "v_proj"), Weights.FP32))
    yield Case("100M", TrainingShape(8, 64, 32, weights=Weights.BF16))
    yield Case("10M", TrainingShape(4, 256, 8, weights=Weights.FP32), tight=True)
    yield Case(
        "100M", TrainingShape(2, 256, 8, weights=Weights.FP32, checkpointing=True), tight=True
    )
    yield Case("1B", TrainingShape(1, 256, 16, weights=Weights.BF16, checkpointing=True))
    yield Case("7B", TrainingShape(1, 1024, 16, weights=Weights.NF4, checkpointing=True))


def child(case: Case, folder: str, device: str) -> dict[str, int]:
    """Load, adapt, train; report overhead and peaks in bytes. Runs in its own process."""
    if case.tight:
        return_freed_memory()
    import torch
    import transformers.models.llama.modeling_llama  # noqa: F401 - belongs to the overhead
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(1)
    overhead = resident_bytes("VmRSS")
    reset_peak()
    model: Any = AutoModelForCausalLM.from_pretrained(folder, **load_options(case, device))
    model.config.use_cache = False
    if case.training.checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    targets: Any = list(case.training.target_modules)
    targets = "all-linear" if targets == ["all-linear"] else targets
    lora = LoraConfig(r=case.training.rank, target_modules=targets, task_type="CAUSAL_LM")
    model = get_peft_model(model, lora).train()
    loading = resident_bytes("VmHWM")
    reset_peak()
    train(model, case, device)
    peak = resident_bytes("VmHWM")
    if device == "cuda":
        return {"overhead": 0, "loading": 0, "training": torch.cuda.max_memory_reserved()}
    return {
        "overhead": overhead,
        "loading": loading,
        "training": peak,
        "live": live_peak(model, case),
    }


def load_options(case: Case, device: str) -> dict[str, Any]:
    """Keyword arguments of from_pretrained for this case."""
    import torch

    if case.training.weights is Weights.FP32:
        return {"dtype": torch.float32}
    options: dict[str, Any] = {"dtype": torch.bfloat16}
    if device == "cuda":
        options["device_map"] = {"": 0}
    if case.training.weights is Weights.NF4:
        from transformers import BitsAndBytesConfig

        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16,
        )
    return options


def train(model: Any, case: Case, device: str, steps: int = STEPS) -> None:
    """AdamW steps as lora/training/train.py takes them, every token learnt."""
    import torch

    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4)
    t, generator = case.training, torch.Generator().manual_seed(0)
    for _ in range(steps):
        rows = torch.randint(3, 8000, (t.micro_batch, t.seq_len), generator=generator).to(device)
        loss_of(model, rows).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def loss_of(model: Any, rows: Any) -> Any:
    """Cross entropy over every token; logits end with this call, as in lora/training/loss.py."""
    from torch.nn import functional

    logits = model(input_ids=rows, use_cache=False).logits
    return functional.cross_entropy(logits.flatten(0, 1).float(), rows.flatten())


def live_peak(model: Any, case: Case) -> int:
    """Peak bytes of tensors alive in one more step: what the allocator was really asked for."""
    import weakref

    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_map_only

    class Live(TorchDispatchMode):
        """Counts each storage once, from its first appearance to its end."""

        def __init__(self) -> None:
            super().__init__()
            self.known: set[int] = set()
            self.now = self.peak = 0

        def track(self, tensor: Any) -> None:
            storage = tensor.untyped_storage()
            key, size = storage._cdata, storage.nbytes()
            if key not in self.known:
                self.known.add(key)
                self.now += size
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self.forget, key, size)

        def forget(self, key: int, size: int) -> None:
            self.known.discard(key)
            self.now -= size

        def __torch_dispatch__(self, func: Any, _: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = func(*args, **(kwargs or {}))
            tree_map_only(torch.Tensor, self.track, result)
            return result

    mode = Live()
    for parameter in model.parameters():
        mode.track(parameter)
    with mode:
        train(model, case, "cpu", steps=1)
    return mode.peak


def resident_bytes(key: str) -> int:
    """VmRSS or VmHWM of this process, from /proc."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {key}")


def reset_peak() -> None:
    """Make VmHWM start again from the present resident size (proc(5), clear_refs 5)."""
    Path("/proc/self/clear_refs").write_text("5")


def measure(case: Case, folder: Path, device: str) -> dict[str, Any]:
    """Run one case in a subprocess and put prediction and measurement side by side."""
    saved = save_random(case.model, folder)
    stored = sum(f.stat().st_size for f in saved.glob("*.safetensors"))
    command = [sys.executable, "-W", "ignore", __file__, "--child", case.name]
    command += ["--folder", str(saved), "--device", device]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return {"case": case.name, "failed": done.stderr[-2000:]}
    found = json.loads(done.stdout.splitlines()[-1])
    host = cpu_host(found["overhead"], case.tight) if device == "cpu" else cuda_host()
    shape = ModelShape.from_config(config_of(case.model))
    same_dtype = case.training.weights is stored_dtype(case.model)
    predicted = predict(shape, case.training, host, 0 if same_dtype else stored)
    measured = max(found["training"], found["loading"])
    return {
        "case": case.name,
        **found,
        "measured": measured,
        "predicted": predicted.total,
        "predicted_training": predicted.training,
        "predicted_live": predicted.live,
        "error": predicted.total / measured - 1,
        "error_training": predicted.training / found["training"] - 1,
        "error_live": predicted.live / found["live"] - 1 if "live" in found else None,
    }


def stored_dtype(model: str) -> Weights:
    """Published models of this size come as bfloat16; the small ones here as float32."""
    return Weights.BF16 if model in ("1B", "7B") else Weights.FP32


def save_random(model: str, folder: Path) -> Path:
    """Write a random model of this size once, in a process that forgets it."""
    saved = folder / model
    if not (saved / "config.json").exists():
        script = (
            "import sys, json, torch\n"
            "from transformers import AutoConfig, AutoModelForCausalLM\n"
            "config = json.loads(sys.argv[1]); family = config.pop('model_type')\n"
            "config = AutoConfig.for_model(family, **config)\n"
            "dtype = getattr(torch, sys.argv[2]); torch.set_default_dtype(dtype)\n"
            "AutoModelForCausalLM.from_config(config, dtype=dtype).save_pretrained(sys.argv[3])\n"
        )
        dtype = "bfloat16" if stored_dtype(model) is Weights.BF16 else "float32"
        arguments = [json.dumps(config_of(model)), dtype, str(saved)]
        command = [sys.executable, "-W", "ignore", "-c", script, *arguments]
        subprocess.run(command, check=True, capture_output=True)
    return saved


def chosen(names: str, device: str) -> list[Case]:
    """The cases named; 4-bit needs CUDA, 1B is left out of `small`."""
    usable = [c for c in cases() if device == "cuda" or c.training.weights is not Weights.NF4]
    if names == "all":
        return usable
    if names == "small":
        return [c for c in usable if c.model in ("10M", "100M")]
    return [c for c in cases() if c.name in names.split(",") or c.model in names.split(",")]


def row(result: dict[str, Any]) -> str:
    """One line of the table."""
    if "failed" in result:
        return f"{result['case']:32s} failed: {result['failed'].splitlines()[-1]}"
    mib = 1 << 20
    return (
        f"{result['case']:32s} predicted {result['predicted'] / mib:8.0f} MiB  "
        f"measured {result['measured'] / mib:8.0f} MiB  error {result['error']:+6.1%}  "
        f"(training {result['error_training']:+6.1%}, live {result['error_live'] or 0:+6.1%})"
    )


def main() -> None:
    """Measure what was asked for and print it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--cases", default="small")
    parser.add_argument("--folder", default=None)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--child", default=None, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        case = next(c for c in cases() if c.name == options.child)
        print(json.dumps(child(case, options.folder, options.device)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(options.folder or scratch)
        results = []
        for case in chosen(options.cases, options.device):
            results.append(measure(case, folder, options.device))
            print(row(results[-1]), file=sys.stderr if options.json else sys.stdout, flush=True)
    errors = [abs(r["error"]) for r in results if "error" in r]
    summary = {"memory_error": max(errors, default=None), "cases": results}
    print(json.dumps(summary) if options.json else f"memory_error {max(errors, default=0):.1%}")


if __name__ == "__main__":
    main()
