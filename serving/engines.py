"""An engine for a source's base: transformers, or llama.cpp where it is installed."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nomoat.aggregation.errors import UsageError
from nomoat.aggregation.protocol.adapter import Adapter
from nomoat.client.machine.free_memory import free_bytes
from nomoat.lora.export.factors import of_adapter
from nomoat.lora.export.llama_cpp.files import Named, WholeModel, write_adapter, write_model
from nomoat.lora.export.llama_cpp.layout import TensorLayout
from nomoat.lora.export.llama_cpp.vocabulary import Vocabulary
from nomoat.lora.export.turns import template_of
from nomoat.lora.export.weights import BaseWeights
from nomoat.lora.inference import llama_server
from nomoat.lora.inference.llama_server import Setup
from nomoat.lora.inference.requests import Engine
from nomoat.lora.model.ending import ending_tokens
from nomoat.lora.model.files import config, content_hash
from nomoat.serving.room import check_room
from nomoat.storage.atomic import replacing_folder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

LONGEST = 8192  # tokens of one request to llama.cpp: its memory is taken when it starts
# Keys and values of one server, up to which each voice gets a server of its own.
APART_BYTES = 64 << 20
KEPT_MODELS, MODEL_FILE = "gguf", "model.gguf"


class EngineKind(StrEnum):
    """Engines there are; `auto` is gguf where it can be."""

    AUTO = "auto"
    PEFT = "peft"
    GGUF = "gguf"


@dataclass(frozen=True)
class EngineHost:
    """This machine as an engine uses it. cache: where converted models are kept.

    threads: 0 for one per core. quant: of the base under llama.cpp.
    """

    cache: Path
    device: str = "auto"
    threads: int = 0
    slots: int = 8
    quant: str = "f16"


@dataclass(frozen=True)
class Loaded:
    """An engine and the tokenizer of its base. said: what a person should know of it."""

    engine: Engine
    tokenizer: PreTrainedTokenizerBase
    said: str


@contextlib.contextmanager
def running(folder: Path, kind: EngineKind, machine: EngineHost) -> Iterator[Loaded]:
    """Run an engine for the base in `folder` while the block runs.

    UsageError if llama.cpp is wanted and cannot be had, or cannot compute this base.
    """
    wants_gguf = kind is EngineKind.GGUF
    if kind is EngineKind.AUTO and llama_server.installed():
        with contextlib.suppress(UsageError):
            TensorLayout.of(config(folder))
            wants_gguf = True
    with contextlib.ExitStack() as stack:
        if wants_gguf:
            scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nomoat-")))
            loaded = _gguf(folder, machine, scratch)
        else:
            loaded = _peft(folder, machine)
        stack.callback(loaded.engine.close)
        yield loaded


def _peft(folder: Path, machine: EngineHost) -> Loaded:
    import torch

    from nomoat.lora.device import backends
    from nomoat.lora.inference.peft_engine import PeftEngine
    from nomoat.lora.model.base_model import load

    if not backends.pick(machine.device).own_memory:
        check_room(folder, "float32", free_bytes())
    if machine.threads:
        torch.set_num_threads(machine.threads)
    base = load(str(folder), machine.device)
    said = f"peft engine on {base.device.type}, {str(base.model.dtype).removeprefix('torch.')}"
    return Loaded(PeftEngine(base), base.tokenizer, said)


def _gguf(folder: Path, machine: EngineHost, scratch: Path) -> Loaded:
    from nomoat.lora.inference.gguf_engine import GgufEngine
    from nomoat.lora.model.base_model import load_tokenizer

    if not llama_server.installed():
        raise UsageError(llama_server.INSTALL)
    check_room(folder, machine.quant, free_bytes())
    layout, tokenizer = TensorLayout.of(config(folder)), load_tokenizer(str(folder))
    model = _converted(folder, layout, tokenizer, machine)
    written: dict[str, Path] = {}

    def write(voice: str, adapter: Adapter) -> Path:
        if voice not in written:
            file = scratch / f"{len(written)}.gguf"
            said = Named(voice, folder.name, bytes(32))
            write_adapter(file, layout, of_adapter(adapter), said)
            written[voice] = file
        return written[voice]

    context = min(layout.context, LONGEST)
    setup = Setup(model, context=context, slots=machine.slots, threads=machine.threads)
    said = f"gguf engine (llama.cpp), base in {machine.quant}"
    apart = layout.cache_bytes(context * machine.slots) <= APART_BYTES
    return Loaded(GgufEngine(setup, write, apart), tokenizer, said)


def _converted(folder: Path, layout: TensorLayout, tokenizer: Any, machine: EngineHost) -> Path:
    """The base as GGUF, made once for each content and kept in the cache."""
    digest = content_hash(folder)
    kept = machine.cache / KEPT_MODELS / f"{digest.hex()[:32]}-{machine.quant}"
    if not (kept / MODEL_FILE).is_file():
        size = int(config(folder)["vocab_size"])
        vocabulary = Vocabulary.of(tokenizer, size, ending_tokens(folder, tokenizer))
        weights, template = BaseWeights.open(folder), template_of(tokenizer)
        whole = WholeModel(layout, vocabulary, weights, template)
        said = Named(folder.name, folder.name, digest)
        with replacing_folder(kept) as fresh:
            write_model(fresh / MODEL_FILE, whole, machine.quant, said)
    return kept / MODEL_FILE
