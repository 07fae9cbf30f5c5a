"""Tokens after which an answer has ended."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MARK = "XqREPLYqX"


def ending_tokens(folder: Path, tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """The tokenizer's <eos>, those of generation_config.json, and the end of turn of its template.

    In ascending order. A template may close turns with a token of its own, which is then what
    training has taught the model to stop with.
    """
    found = set(_ids(tokenizer.eos_token_id))
    file = folder / "generation_config.json"
    if file.is_file():
        with contextlib.suppress(ValueError, AttributeError):  # a hint: none if it is broken
            found |= set(_ids(json.loads(file.read_bytes()).get("eos_token_id")))
    found |= set(_closing(tokenizer))
    return tuple(sorted(found))


def _closing(tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """The special token that follows an assistant's turn in the chat template, if any."""
    if not getattr(tokenizer, "chat_template", None):
        return ()
    applied: Any = tokenizer.apply_chat_template
    turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": MARK}]
    try:
        text = str(applied(turns, tokenize=False))
    except Exception:  # noqa: BLE001 - a template is a program: it raises anything
        return ()
    _, found, behind = text.partition(MARK)
    names = special_texts(tokenizer) if found else ()
    name = next((name for name in names if behind.lstrip().startswith(name)), None)
    return () if name is None else _ids(tokenizer.convert_tokens_to_ids(name))


def special_texts(tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    """The texts of all special tokens, the longest first."""
    added = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    return tuple(sorted(added | set(map(str, tokenizer.all_special_tokens)), key=len, reverse=True))


def _ids(value: Any) -> tuple[int, ...]:
    if value is None:
        return ()
    return tuple(int(v) for v in value) if isinstance(value, list | tuple) else (int(value),)
