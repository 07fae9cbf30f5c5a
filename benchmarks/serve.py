"""Tokens per second of both engines behind the API, beside bare generation; and wrong answers.

    python benchmarks/serve.py [MODEL] [--json] [--clients 8] [--tokens 64] [--threads 1]

wrong: of concurrent answers over four voices, how many are not what the voice says alone.
peft_batch_ratio: tokens per second of many requests at once over one at a time, peft engine.
gguf_tokens_ratio: tokens per second of the gguf engine over the peft engine, many at once.
first_token_ratio: time to the first token of a stream over transformers' own generate.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from nomoat.aggregation.protocol.adapter import Adapter
from nomoat.lora.inference import llama_server
from nomoat.lora.inference.prompts import Prompts
from nomoat.serving import engines
from nomoat.serving.engines import EngineHost, EngineKind
from nomoat.serving.http.app import ApiService, make_app
from nomoat.serving.http.running import bound
from nomoat.serving.sources.source import BaseRef
from nomoat.serving.voices import EngineVoices
from nomoat.simulations.pocket import MODEL_DIR

# Continued, not answered: the pocket model answers a question in eight tokens, and then reading
# prompts is all that is measured.
TEXT = "Return the name of the file, or None. The following table lists the options of the "
NAMES = ("base", "community@1", "community@2", "personal")
KEY = "benchmark"


@dataclass
class Drawn:
    """Adapters drawn at random: three voices beside the base."""

    base: BaseRef
    adapters: dict[str, Adapter]
    title: str = "benchmark"

    def voices(self) -> tuple[str, ...]:
        """All four."""
        return NAMES

    def exact(self, voice: str) -> str:
        """Every name means the same for ever."""
        return voice

    def load(self, voice: str) -> Adapter:
        """A voice's adapter."""
        return self.adapters[voice]

    def card(self, voice: str) -> str:
        """Nothing is known of it."""
        return voice

    def losses(self, voice: str) -> dict[str, float]:
        """Nothing was measured."""
        return {}

    def by_volunteer(self, voice: str) -> dict[str, float]:
        """Nobody has measured anything."""
        return {}


def drawn(folder: Path) -> Drawn:
    """Rank 8 on every layer; small enough that answers stay words."""
    from nomoat.lora.model.adapter_spec import new_spec

    spec = new_spec(str(folder), 8, 16.0)
    rng = np.random.default_rng(0)
    adapters = {
        name: Adapter(spec, (rng.standard_normal(spec.size) * 0.02).astype(np.float32))
        for name in NAMES[1:]
    }
    return Drawn(BaseRef(str(folder), folder.name), adapters)


@contextmanager
def api(source: Drawn, folder: Path, kind: EngineKind, host: EngineHost) -> Iterator[str]:
    """The API in front of an engine; its address."""
    import uvicorn

    with engines.running(folder, kind, host) as made, bound("127.0.0.1", 0) as listening:
        voices = EngineVoices(made.engine, source)
        for name in NAMES:
            voices.key(name)
        app = make_app(ApiService(voices, Prompts.of(made.tokenizer), KEY, time.time))
        config = uvicorn.Config(app, log_level="error", access_log=False, ws="none")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/v1/completions"
        server.should_exit = True
        thread.join()


@dataclass(frozen=True)
class Load:
    """The amount asked."""

    clients: int
    requests: int
    tokens: int

    def body(self, name: str, **more: Any) -> dict[str, Any]:
        """A request, greedy."""
        asked = {"model": name, "prompt": TEXT, "max_tokens": self.tokens, "temperature": 0}
        return asked | more


def measure(url: str, load: Load) -> dict[str, float]:
    """Tokens per second one at a time and at once, wrong answers, seconds to the first token."""
    with httpx.Client(headers={"Authorization": f"Bearer {KEY}"}, timeout=600) as client:

        def ask(name: str) -> tuple[str, int]:
            answer = client.post(url, json=load.body(name)).json()
            return answer["choices"][0]["text"], answer["usage"]["completion_tokens"]

        alone = {name: ask(name)[0] for name in NAMES}
        order = [NAMES[k % len(NAMES)] for k in range(load.requests)]
        started = time.perf_counter()
        singly = sum(ask(name)[1] for name in order[: load.clients])
        one_by_one = singly / (time.perf_counter() - started)
        started = time.perf_counter()
        with ThreadPoolExecutor(load.clients) as pool:
            answers = list(pool.map(ask, order))
        at_once = sum(count for _, count in answers) / (time.perf_counter() - started)
        wrong = sum(text != alone[name] for name, (text, _) in zip(order, answers, strict=True))
        first = min(first_token(client, url, load) for _ in range(5))
    return {"wrong": wrong, "one": one_by_one, "many": at_once, "first_token_s": first}


def first_token(client: httpx.Client, url: str, load: Load) -> float:
    """Seconds until a stream's first text."""
    started = time.perf_counter()
    with client.stream("POST", url, json=load.body(NAMES[1], stream=True)) as lines:
        for line in lines.iter_lines():
            if '"text": "' in line and '"text": ""' not in line:
                return time.perf_counter() - started
    raise RuntimeError("the stream had no text")


def bare_first_token(folder: Path, adapter: Adapter) -> float:
    """Seconds transformers and PEFT take for one token."""
    import torch

    from nomoat.lora.model.adapter_slot import attach, swap
    from nomoat.lora.model.base_model import load

    base = load(str(folder), "cpu")
    model = attach(base, adapter.spec)
    swap(model, adapter)
    prompt = Prompts.of(base.tokenizer).text(TEXT)
    ids = torch.tensor([list(prompt)])
    options: Any = {"max_new_tokens": 1, "do_sample": False, "use_cache": True, "pad_token_id": 0}
    seconds = []
    for _ in range(6):
        started = time.perf_counter()
        model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **options)
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def compare(folder: Path, load: Load, threads: int) -> dict[str, Any]:
    """Both engines and bare generation, on the same requests."""
    import torch

    torch.set_num_threads(threads)
    source = drawn(folder)
    bare = bare_first_token(folder, source.adapters[NAMES[1]])
    found: dict[str, Any] = {"bare_first_token_s": bare}
    with tempfile.TemporaryDirectory() as cache:
        host = EngineHost(Path(cache), "cpu", threads)
        for kind in (EngineKind.PEFT, EngineKind.GGUF):
            if kind is EngineKind.GGUF and not llama_server.installed():
                continue
            with api(source, folder, kind, host) as url:
                found[kind.value] = measure(url, load)
    peft = found["peft"]
    found["wrong"] = sum(found[k]["wrong"] for k in ("peft", "gguf") if k in found)
    found["peft_batch_ratio"] = peft["many"] / peft["one"]
    found["first_token_ratio"] = peft["first_token_s"] / bare
    if "gguf" in found:
        found["gguf_tokens_ratio"] = found["gguf"]["many"] / peft["many"]
    return found


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("model", nargs="?", type=Path, default=MODEL_DIR)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--requests", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    load = Load(given.clients, given.requests, given.tokens)
    found = compare(given.model, load, given.threads)
    if given.json:
        json.dump(found, sys.stdout)
        sys.stdout.write("\n")
        return
    for name, value in found.items():
        print(f"{name:20} {value}")


if __name__ == "__main__":
    main()
