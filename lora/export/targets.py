"""An adapter written for one of the programs people have, compared, and how to go on from there.

A folder appears whole and compared, or not at all: a full disk or a difference leaves nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

from nomoat.aggregation.errors import UsageError
from nomoat.lora.export import factors as factored
from nomoat.lora.export import mlx_folder, model_card
from nomoat.lora.export.llama_cpp.files import QUANTS, Named, WholeModel, write_adapter, write_model
from nomoat.lora.export.llama_cpp.layout import TensorLayout
from nomoat.lora.export.llama_cpp.vocabulary import Vocabulary
from nomoat.lora.export.merged_folder import write_merged
from nomoat.lora.export.order import Exported, ExportTarget, Order
from nomoat.lora.export.self_check import BOUNDS, GELU, NOT_INSTALLED, Comparison
from nomoat.lora.export.turns import PLAIN, TurnFormat, template_of
from nomoat.lora.export.weights import BaseWeights
from nomoat.lora.inference import llama_server
from nomoat.lora.model.adapter_folder import save_folder
from nomoat.lora.model.ending import ending_tokens
from nomoat.lora.model.files import config
from nomoat.storage.atomic import replacing_folder

VLLM_RANKS: Final = (1, 8, 16, 32, 64, 128, 256, 320, 512)
MLX_EXACT: Final = 1e-4  # largest |ΔW| error allowed; the format stores the same float32 values

_Writer = Callable[[Order, Path, Comparison], tuple[str, str]]


def export(order: Order) -> Exported:
    """Write what was ordered into order.out, a new folder.

    UsageError for what the target cannot take, BadData for an adapter of another base, NomoatError
    if the disk is full or the result does not compute what was measured: then nothing is left.
    """
    if order.out.exists():
        raise UsageError(f"{order.out} exists already; choose another folder")
    if order.quant and order.quant not in QUANTS:
        raise UsageError(f"--quant {order.quant}: choose one of {', '.join(QUANTS)}")
    if order.quant and order.target not in (
        ExportTarget.GGUF,
        ExportTarget.PHONE,
        ExportTarget.OLLAMA,
    ):
        raise UsageError(f"--quant is for GGUF files, and {order.target} has none")
    BaseWeights.open(
        order.base, factored.of_adapter(order.adapter)
    )  # refused before a byte is written
    with replacing_folder(order.out) as fresh:
        checked, then = WRITERS[order.target](order, fresh, Comparison(order))
        names = sorted(path.name for path in fresh.iterdir())
    return Exported(tuple(order.out / name for name in names), checked, then)


def _peft(order: Order, fresh: Path, compared: Comparison) -> tuple[str, str]:
    _save(order, fresh)
    return _compared_peft(order, fresh, compared), f"nomoat chat --adapter {order.out}"


def _hub(order: Order, fresh: Path, compared: Comparison) -> tuple[str, str]:
    if not order.facts.base_id:
        raise UsageError(
            f"the hub links an adapter to its base, and {order.base_name!r} is no id of the hub: "
            "say --base-id OWNER/NAME"
        )
    if not order.facts.license:
        raise UsageError("the hub wants a license: say --license, such as apache-2.0")
    _save(order, fresh)
    model_card.check((fresh / "README.md").read_text("utf-8"))
    checked = _compared_peft(order, fresh, compared)
    return f"{checked}; the card is valid", f"hf upload OWNER/{order.name} {order.out} ."


def _vllm(order: Order, fresh: Path, compared: Comparison) -> tuple[str, str]:
    _save(order, fresh)
    checked = _compared_peft(order, fresh, compared)
    rank = next((r for r in VLLM_RANKS if r >= order.adapter.spec.rank), None)
    if rank is None:
        raise UsageError(f"vLLM takes no rank above {VLLM_RANKS[-1]}: export it merged")
    then = (
        f"vllm serve {_base(order)} --enable-lora --max-lora-rank {rank} "
        f"--lora-modules {order.name}={order.out}"
    )
    template = template_of(compared.tokenizer)
    if template is PLAIN:
        (fresh / "chat_template.jinja").write_text(template, encoding="utf-8")
        then += f" --chat-template {order.out / 'chat_template.jinja'}"
    return checked, then


def _merged(order: Order, fresh: Path, compared: Comparison) -> tuple[str, str]:
    write_merged(order.base, factored.of_adapter(order.adapter), fresh)
    facts = replace(order.facts, relation="finetune")
    (fresh / "README.md").write_text(model_card.card(facts, order.text), "utf-8")
    then = f"nomoat chat --base {order.out}"
    if not order.check:
        return "not compared", then
    found = compared.merged(fresh)
    stored = {"F32": "f32", "F16": "f16", "BF16": "bf16"}
    files = BaseWeights.open(fresh).files
    worst = max((f.dtype(n) for f in files for n in f.header), key=("F32", "F16", "BF16").index)
    BOUNDS[stored[worst]].check(found, "the merged model")
    return str(found), then


def _mlx(order: Order, fresh: Path, compared: Comparison) -> tuple[str, str]:
    found = factored.of_adapter(order.adapter)
    mlx_folder.write_mlx(found, int(config(order.base)["num_hidden_layers"]), fresh)
    error = mlx_folder.largest_error(found, fresh)
    if not error <= MLX_EXACT:
        raise UsageError(f"MLX would compute another adapter, off by {error:.1e}")
    then = f"mlx_lm.generate --model {_base(order)} --adapter-path {order.out} --prompt 'Hello'"
    return f"every layer's B A within {error:.1e}, computed as mlx-lm does", then


def _gguf(order: Order, fresh: Path, compared: Comparison) -> tuple[str, str]:
    quant = order.quant or "f16"
    layout = TensorLayout.of(config(order.base))
    said = _named(order)
    model, adapter = f"base-{quant}.gguf", f"{order.name}.lora.gguf"
    found = factored.of_adapter(order.adapter)
    write_adapter(fresh / adapter, layout, found, said)
    weights, template = BaseWeights.open(order.base), template_of(compared.tokenizer)
    whole = WholeModel(layout, _vocabulary(compared), weights, template)
    write_model(fresh / model, whole, quant, said)
    then = f"llama-server -m {order.out / model} --lora {order.out / adapter}"
    return _compared_llama(compared, fresh / model, (fresh / adapter,), quant), then


def _one_file(order: Order, fresh: Path, compared: Comparison, quant: str) -> tuple[Path, str]:
    layout = TensorLayout.of(config(order.base))
    merged = BaseWeights.open(order.base, factored.of_adapter(order.adapter))
    path = fresh / f"{order.name}-{quant}.gguf"
    template = template_of(compared.tokenizer)
    whole = WholeModel(layout, _vocabulary(compared), merged, template)
    write_model(path, whole, quant, _named(order))
    return path, _compared_llama(compared, path, (), quant)


def _phone(order: Order, fresh: Path, compared: Comparison) -> tuple[str, str]:
    path, checked = _one_file(order, fresh, compared, order.quant or "q4_0")
    file = order.out / path.name
    return checked, (
        f"copy {file} to the phone and open it there (PocketPal: Models, +, Add Local Model); "
        f"on a computer: llama-cli -m {file}"
    )


def _ollama(order: Order, fresh: Path, compared: Comparison) -> tuple[str, str]:
    path, checked = _one_file(order, fresh, compared, order.quant or "q8_0")
    turns = TurnFormat.of(compared.tokenizer)
    opened = _vocabulary(compared).add_bos
    bos = str(compared.tokenizer.bos_token) if opened else None
    lines = [f"FROM ./{path.name}", f'TEMPLATE """{turns.go_template(bos)}"""']
    if turns.stop:
        lines.append(f'PARAMETER stop "{turns.stop}"')
    lines.append(f"PARAMETER num_ctx {min(TensorLayout.of(config(order.base)).context, 8192)}")
    (fresh / "Modelfile").write_text("\n".join(lines) + "\n", encoding="utf-8")
    name = ollama_name(order.name)
    return checked, f"ollama create {name} -f {order.out / 'Modelfile'} && ollama run {name}"


WRITERS: Final[dict[ExportTarget, _Writer]] = {
    ExportTarget.PEFT: _peft,
    ExportTarget.HUB: _hub,
    ExportTarget.VLLM: _vllm,
    ExportTarget.MERGED: _merged,
    ExportTarget.MLX: _mlx,
    ExportTarget.GGUF: _gguf,
    ExportTarget.PHONE: _phone,
    ExportTarget.OLLAMA: _ollama,
}


def ollama_name(name: str) -> str:
    """A name Ollama takes: lower case, no @."""
    return re.sub(r"[^a-z0-9._-]+", "-", name.lower()).strip("-._") or "community"


def _save(order: Order, fresh: Path) -> None:
    readme = model_card.card(order.facts, order.text)
    save_folder(order.adapter, order.base_name, fresh, readme, order.base_hash)


def _compared_peft(order: Order, fresh: Path, compared: Comparison) -> str:
    if not order.check:
        return "not compared"
    found = compared.peft(fresh)
    BOUNDS["f32"].check(found, "the PEFT folder")
    return str(found)


def _compared_llama(
    compared: Comparison, model: Path, adapters: tuple[Path, ...], quant: str
) -> str:
    if not compared.order.check:
        return "not compared"
    if not llama_server.installed():
        return NOT_INSTALLED
    found = compared.llama(model, adapters)
    gelu = quant == "f32" and TensorLayout.of(config(compared.order.base)).gelu
    BOUNDS[GELU if gelu else quant].check(found, "llama.cpp, given these files,")
    return f"tokens equal, {found}"


def _vocabulary(compared: Comparison) -> Vocabulary:
    order = compared.order
    size = int(config(order.base)["vocab_size"])
    ends = ending_tokens(order.base, compared.tokenizer)
    return Vocabulary.of(compared.tokenizer, size, ends)


def _named(order: Order) -> Named:
    return Named(
        order.name, order.base_name, order.base_hash, order.facts.base_id, order.facts.license
    )


def _base(order: Order) -> str:
    """The base as other programs find it."""
    return order.facts.base_id or str(order.base)
