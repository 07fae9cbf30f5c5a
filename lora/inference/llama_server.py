"""llama.cpp's own server in this process, by way of xllamacpp."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from nomoat.aggregation.errors import BadData, UsageError

INSTALL = "this needs llama.cpp: pip install gguf xllamacpp"
SILENT = -1


@dataclass(frozen=True)
class Setup:
    """A model file, the adapters loaded beside it, and how much is computed at a time.

    context: tokens of one request; slots: requests at a time. exact: keys and values in float32
    and plain attention, for comparisons; else float16, as everyone runs it.
    """

    model: Path
    adapters: tuple[Path, ...] = ()
    context: int = 512
    slots: int = 1
    threads: int = 0  # 0: one per core
    exact: bool = False
    gpu_layers: int = 0


def installed() -> bool:
    """Tell whether xllamacpp can be imported here."""
    try:
        import xllamacpp  # noqa: F401
    except ImportError:
        return False
    return True


@dataclass(frozen=True, eq=False)
class LlamaServer:
    """A running server. `key` opens its port on 127.0.0.1 and stays in this process."""

    engine: Any
    key: str
    adapters: int

    def scales(self, chosen: Sequence[int]) -> list[dict[str, float]]:
        """The full list of scales, zeros included, with 1 for the `chosen` adapters.

        Every request has to carry it: without it, llama.cpp answers from keys and values that it
        computed under another adapter.
        """
        return [{"id": n, "scale": float(n in chosen)} for n in range(self.adapters)]

    def tokens(self, text: str) -> list[int]:
        """Ids of plain text: nothing added, control tokens written out in it stay text."""
        asked = {"content": text, "add_special": False, "parse_special": False}
        answer = httpx.post(
            f"{self.engine.listening_address}/tokenize",
            json=asked,
            headers={"Authorization": f"Bearer {self.key}"},
            timeout=60,
            trust_env=False,
        )
        return [int(token) for token in answer.json()["tokens"]]


@contextlib.contextmanager
def serving(setup: Setup) -> Iterator[LlamaServer]:
    """Run a server while the block runs."""
    server = start(setup)
    try:
        yield server
    finally:
        stop(server)


def start(setup: Setup) -> LlamaServer:
    """Load the files and serve them; UsageError if xllamacpp is missing, BadData for bad files."""
    try:
        import xllamacpp
    except ImportError:
        raise UsageError(INSTALL) from None
    key = os.urandom(16).hex()
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(setup.model)
    parameters.lora_adapters = [
        xllamacpp.CommonAdapterLoraInfo(str(path), 0.0) for path in setup.adapters
    ]
    parameters.n_ctx, parameters.n_parallel = setup.context * setup.slots, setup.slots
    parameters.kv_unified = False
    threads = setup.threads or os.cpu_count() or 1
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = threads
    parameters.n_gpu_layers = setup.gpu_layers
    parameters.hostnames, parameters.api_keys = ["127.0.0.1"], [key]
    parameters.warmup = parameters.ui = parameters.endpoint_slots = False
    parameters.fit_params = False
    parameters.verbosity = SILENT
    if setup.exact:
        parameters.cache_type_k = parameters.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
        parameters.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    try:
        engine = xllamacpp.Server(parameters)
    except Exception as problem:  # its own types, for files it does not like
        reason = " ".join(str(problem).split())[:160]
        raise BadData(f"llama.cpp cannot load {setup.model}: {reason}") from problem
    return LlamaServer(engine, key, len(setup.adapters))


def stop(server: LlamaServer) -> None:
    """Give its memory back: the native server ends when nothing holds it any more."""
    object.__setattr__(server, "engine", None)
