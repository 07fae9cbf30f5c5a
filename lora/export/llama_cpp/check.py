"""A comparison of what llama.cpp computes from an export with what this project measured.

Two things go wrong in silence when a model changes its format: text becomes other tokens, and a
tensor is laid out or scaled otherwise. Both are looked at before an export is called done.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nomoat.aggregation.errors import NomoatError
from nomoat.lora.inference.llama_server import LlamaServer

TEXTS = (
    "The mail server keeps a copy of every message.",
    'def open(file, mode=\'r\'):\n    """Return a file."""\n\n    return 12345 + 67',
    "Grüße, déjà vu, 東京, привет, 🙂 and  two  spaces\tand a tab.",
    "  leading spaces, trailing ones too  ",
    "It's 2024-05-17; we'll pay $1,000.50 (or 3/4)!",
    "\n\nlines\n\n\nand CamelCase and snake_case",
)


def check_tokens(server: LlamaServer, expected: Mapping[str, Sequence[int]]) -> None:
    """NomoatError naming the first text that llama.cpp splits into other tokens."""
    for text, ids in expected.items():
        found = server.tokens(text)
        if found != list(ids):
            place = next((k for k, (a, b) in enumerate(zip(found, ids, strict=False)) if a != b), 0)
            raise NomoatError(
                f"llama.cpp splits {text[:40]!r} otherwise than the model's tokenizer does, from "
                f"token {place} on: the export would not answer as measured; nothing was written"
            )


def next_logprobs(
    server: LlamaServer, prompt: Sequence[int], chosen: Sequence[int], most: int
) -> dict[int, float]:
    """Log-probability of the `most` likeliest tokens after `prompt`, by id.

    llama.cpp tells them only of a token that it writes as text, so that one is
    forced: a bias moves what is sampled and not what is told.
    """
    asked = {
        "prompt": list(prompt),
        "max_tokens": 1,
        "temperature": 0,
        "n_probs": most,
        "logit_bias": [[server.tokens("a")[-1], 1e6]],
        "lora": server.scales(chosen),
        "cache_prompt": False,
    }
    answer: Any = server.engine.handle_completions(asked)
    if "error" in answer:
        raise NomoatError(f"llama.cpp: {str(answer['error'].get('message'))[:160]}")
    content = answer["choices"][0]["logprobs"]["content"]
    return {int(entry["id"]): float(entry["logprob"]) for entry in content[0]["top_logprobs"]}
