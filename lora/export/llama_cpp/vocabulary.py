"""A tokenizer as GGUF keeps it: tokens, their kinds, merges or scores, special ids.

Read from the tokenizer as transformers has loaded it, because that is the one adapters are
trained with: loading may replace parts of tokenizer.json.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Final

from nomoat.aggregation.errors import UsageError
from nomoat.lora.export.llama_cpp.layout import UPSTREAM

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_UPPER, _LOWER = r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}", r"\p{Ll}\p{Lm}\p{Lo}\p{M}"
_OPENING = r"[^\r\n\p{L}\p{N}]?"

# How text is split before merging, by the splitting expression itself: upstream knows tokenizers
# by a hash of a test string and refuses every one trained anew.
SPLITS: Final = {
    _WORDS + r"\p{N}{1,3}" + _REST: "llama-bpe",
    _WORDS + r"\p{N}" + _REST: "qwen2",
    f"{_OPENING}[{_UPPER}]*[{_LOWER}]+|{_OPENING}[{_UPPER}]+[{_LOWER}]*"
    + r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+": "tekken",
}


class Kind(IntEnum):
    """Kinds of tokens; numbers of llama.cpp's llama_token_type."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True)
class Vocabulary:
    """All of a tokenizer that a GGUF file holds.

    model: "gpt2" (byte-level BPE, with merges) or "llama" (SentencePiece-like, with scores).
    """

    model: str
    split: str
    tokens: tuple[str, ...]
    kinds: tuple[Kind, ...]
    merges: tuple[str, ...]
    scores: tuple[float, ...]
    specials: Mapping[str, int]  # bos, eos, eot, pad, unk → id
    add_bos: bool
    add_eos: bool
    space_before: bool

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase, size: int, ends: tuple[int, ...]) -> Vocabulary:
        """The vocabulary of `tokenizer` for a model of `size` embeddings.

        ends: further tokens that end an answer. UsageError if llama.cpp would split text otherwise.
        """
        backend: Any = tokenizer
        stored = json.loads(backend.backend_tokenizer.to_str())
        if stored["model"].get("type") != "BPE":
            kind = stored["model"].get("type")
            raise UsageError(f"a tokenizer of the kind {kind} is not converted here; {UPSTREAM}")
        merges = tuple(m if isinstance(m, str) else " ".join(m) for m in stored["model"]["merges"])
        spaced = bool(stored["model"].get("byte_fallback"))
        tokens, kinds = _tokens(stored, size)
        first, last = _added(stored.get("post_processor"))
        return cls(
            model="llama" if spaced else "gpt2",
            split="default" if spaced else _split(stored),
            tokens=tokens,
            kinds=kinds,
            merges=() if spaced else merges,
            scores=_scores(tokens, merges) if spaced else (),
            specials=_specials(backend, ends),
            add_bos=first,
            add_eos=last,
            space_before=spaced and _space_before(stored),
        )


def _tokens(stored: dict[str, Any], size: int) -> tuple[tuple[str, ...], tuple[Kind, ...]]:
    model, added = stored["model"], {t["content"]: t for t in stored["added_tokens"]}
    by_id = {number: text for text, number in model["vocab"].items()}
    by_id |= {token["id"]: token["content"] for token in stored["added_tokens"]}
    tokens, kinds = [], []
    for number in range(size):
        text = by_id.get(number, f"[PAD{number}]")
        tokens.append(text)
        kinds.append(_kind(text, added.get(text), model, number in by_id))
    return tuple(tokens), tuple(kinds)


def _kind(text: str, added: Any, model: dict[str, Any], used: bool) -> Kind:
    if not used:
        return Kind.UNUSED
    if text == model.get("unk_token"):
        return Kind.UNKNOWN
    if added is not None:
        return Kind.CONTROL if added["special"] else Kind.USER_DEFINED
    if model.get("byte_fallback") and re.fullmatch(r"<0x[0-9A-F]{2}>", text):
        return Kind.BYTE
    return Kind.NORMAL


def _scores(tokens: tuple[str, ...], merges: tuple[str, ...]) -> tuple[float, ...]:
    """−(number of the merge that makes a token): SentencePiece merges the highest score first."""
    made: dict[str, int] = {}
    for number, merge in enumerate(merges):
        made.setdefault(merge.replace(" ", "", 1), number)
    return tuple(-float(made.get(token, len(merges))) for token in tokens)


def _split(stored: dict[str, Any]) -> str:
    """llama.cpp's name of the way a byte-level tokenizer splits text."""
    steps = _steps(stored.get("pre_tokenizer"))
    levels = [step for step in steps if step["type"] == "ByteLevel"]
    splits = [step["pattern"].get("Regex") for step in steps if step["type"] == "Split"]
    digits = [step for step in steps if step["type"] == "Digits"]
    spaced = any(level.get("add_prefix_space") for level in levels)
    if len(levels) == 1 and not spaced and len(steps) == 1 + len(splits) + len(digits):
        by_itself = levels[0].get("use_regex", True)
        if by_itself and not splits:
            if not digits:
                return "gpt-2"
            if len(digits) == 1 and digits[0].get("individual_digits"):
                return "smollm"
        if not by_itself and not digits and len(splits) == 1 and splits[0] in SPLITS:
            return SPLITS[splits[0]]
    raise UsageError(f"the way this tokenizer splits text is not known here; {UPSTREAM}")


def _steps(part: Any) -> list[dict[str, Any]]:
    """The single steps of a normalizer, pre-tokenizer or post-processor."""
    if part is None:
        return []
    for inner in ("pretokenizers", "normalizers", "processors"):
        if inner in part:
            return [step for one in part[inner] for step in _steps(one)]
    return [part]


def _space_before(stored: dict[str, Any]) -> bool:
    prepends = [s for s in _steps(stored.get("normalizer")) if s["type"] == "Prepend"]
    spaces = [s for s in _steps(stored.get("pre_tokenizer")) if s["type"] == "Metaspace"]
    return bool(prepends) or any(s.get("prepend_scheme", "always") != "never" for s in spaces)


def _added(post_processor: Any) -> tuple[bool, bool]:
    """Tell whether a text is opened by <bos> and closed by <eos>."""
    for step in _steps(post_processor):
        if step["type"] == "TemplateProcessing" and step["single"]:
            return "SpecialToken" in step["single"][0], "SpecialToken" in step["single"][-1]
    return False, False


def _specials(tokenizer: Any, ends: tuple[int, ...]) -> dict[str, int]:
    named = {kind: getattr(tokenizer, f"{kind}_token_id") for kind in ("bos", "eos", "pad", "unk")}
    found = {
        kind: int(value[0] if isinstance(value, list) else value)
        for kind, value in named.items()
        if value is not None
    }
    if others := [end for end in ends if end != found.get("eos")]:
        found["eot"] = others[0]
    return found
