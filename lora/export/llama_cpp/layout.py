"""A model's tensors and sizes as llama.cpp names them, for the families converted here.

Names, keys and the order of rotary rows are llama.cpp's (gguf-py/gguf/constants.py and
src/models). What a family needs beyond this table is refused, with upstream's own command.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from nomoat.aggregation.errors import UsageError

UPSTREAM = "convert it with llama.cpp's own scripts: convert_hf_to_gguf.py, convert_lora_to_gguf.py"

LAYER: Final = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
# Four norms in a layer: the one after attention is not the one before the feed-forward part.
FOUR_NORMS: Final = LAYER | {
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}
OUTSIDE: Final = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
}
ROPE_FACTORS: Final = "rope_freqs.weight"


@dataclass(frozen=True, slots=True)
class Family:
    """One architecture as llama.cpp computes it.

    paired: rotary dimensions lie in pairs (2i, 2i + 1) and not in halves (i, i + d/2), so that the
    rows of q and k are put in that order. norms_from_one: norms are stored less one. looks_back:
    of so many layers one looks back on everything and the others through a window, which llama.cpp
    knows; 0 if it knows of no window.
    """

    name: str
    paired: bool
    layer: Mapping[str, str] = field(default_factory=lambda: LAYER)
    norms_from_one: bool = False
    looks_back: int = 0


FAMILIES: Final = {
    "LlamaForCausalLM": Family("llama", paired=True),
    "MistralForCausalLM": Family("llama", paired=True),
    "Qwen2ForCausalLM": Family("qwen2", paired=False),
    "Qwen3ForCausalLM": Family("qwen3", paired=False),
    "GemmaForCausalLM": Family("gemma", paired=False, norms_from_one=True),
    "Gemma2ForCausalLM": Family("gemma2", False, FOUR_NORMS, True, looks_back=2),
    "Gemma3ForCausalLM": Family("gemma3", False, FOUR_NORMS, True, looks_back=6),
}
LARGEST: Final = {"gemma2": 46, "gemma3": 62}  # layers of the one that scales attention otherwise


@dataclass(frozen=True)
class TensorLayout:
    """One model: its family and its config.json."""

    family: Family
    config: Mapping[str, Any]

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> TensorLayout:
        """The layout of a model; UsageError, naming upstream's scripts, if none is known here."""
        names = config.get("architectures") or ["unknown"]
        family = FAMILIES.get(str(names[0]))
        if family is None:
            known = ", ".join(sorted(name.removesuffix("ForCausalLM") for name in FAMILIES))
            raise UsageError(f"{names[0]} is not among {known}; {UPSTREAM}")
        layout = cls(family, config)
        layout.rope_factors()
        if family.looks_back:
            layout.check_windows()
        return layout

    @property
    def gelu(self) -> bool:
        """True if the feed-forward part bends values by GELU."""
        named = self.config.get("hidden_activation") or self.config.get("hidden_act") or ""
        return "gelu" in str(named)

    @property
    def heads(self) -> int:
        """Attention heads."""
        return int(self.config["num_attention_heads"])

    @property
    def kv_heads(self) -> int:
        """Heads of keys and values."""
        return int(self.config.get("num_key_value_heads") or self.heads)

    @property
    def head_dim(self) -> int:
        """Width of one head."""
        return int(self.config.get("head_dim") or self.config["hidden_size"] // self.heads)

    @property
    def context(self) -> int:
        """Tokens the model can look back on: no more than a sliding window that is left out."""
        longest = int(self.config["max_position_embeddings"])
        if self.family.looks_back:
            return longest
        window = self.config.get("sliding_window")
        used = self.config.get("use_sliding_window", True)
        return min(longest, int(window)) if window and used else longest

    def cache_bytes(self, tokens: int) -> int:
        """Bytes of the keys and values of so many tokens, in 16 bits."""
        values = 2 * int(self.config["num_hidden_layers"]) * self.kv_heads * self.head_dim
        return 2 * values * tokens

    def tensor(self, name: str) -> str:
        """The GGUF name of a tensor or module of the model; UsageError for one that is unknown."""
        module, dot, ending = name.rpartition(".")
        if ending not in ("weight", "bias"):
            module, dot, ending = name, "", ""
        layer = re.fullmatch(r"model\.layers\.(\d+)\.(.+)", module)
        found = self.family.layer.get(layer[2]) if layer else OUTSIDE.get(module)
        if found is None:
            raise UsageError(f"{name} has no place in a GGUF file that is known here; {UPSTREAM}")
        return (f"blk.{layer[1]}.{found}" if layer else found) + dot + ending

    def arrange(self, name: str, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """`values` of q or k with their rows in llama.cpp's order, norms as they are multiplied by.

        values: (d_out, …): a weight, a bias, or the factor B of an adapter.
        """
        if self.family.norms_from_one and name.endswith("norm.weight"):
            return values + np.float32(1.0)
        kind = re.search(r"self_attn\.([qk])_proj(\.|$)", name)
        if not self.family.paired or kind is None:
            return values
        heads = self.heads if kind[1] == "q" else self.kv_heads
        halves = values.reshape(heads, 2, values.shape[0] // heads // 2, *values.shape[1:])
        return halves.swapaxes(1, 2).reshape(values.shape)

    def sizes(self) -> dict[str, int | float]:
        """Hyperparameters under their keys, the family's name not yet before them."""
        rope = self._rope()
        return {
            "block_count": int(self.config["num_hidden_layers"]),
            "context_length": self.context,
            "embedding_length": int(self.config["hidden_size"]),
            "feed_forward_length": int(self.config["intermediate_size"]),
            "attention.head_count": self.heads,
            "attention.head_count_kv": self.kv_heads,
            "attention.key_length": self.head_dim,
            "attention.value_length": self.head_dim,
            "attention.layer_norm_rms_epsilon": float(self.config["rms_norm_eps"]),
            "rope.dimension_count": self.head_dim,
            "rope.freq_base": float(rope.get("rope_theta", 10_000.0)),
            "vocab_size": int(self.config["vocab_size"]),
        } | self._windows()

    def scaling(self) -> dict[str, str | int | float]:
        """Keys of a linear or YaRN scaling of the rotary frequencies; none if there is none."""
        rope = self._rope()
        if rope.get("rope_type") not in ("linear", "yarn"):
            return {}
        found: dict[str, str | int | float] = {
            "rope.scaling.type": str(rope["rope_type"]),
            "rope.scaling.factor": float(rope["factor"]),
        }
        if original := rope.get("original_max_position_embeddings"):
            found["rope.scaling.original_context_length"] = int(original)
        return found

    def rope_factors(self) -> NDArray[np.float32] | None:
        """Divisors of the rotary frequencies (head_dim / 2,), as Llama 3.1 defines it.

        transformers, modeling_rope_utils.py, _compute_llama3_parameters. UsageError for a scaling
        that is unknown here.
        """
        rope = self._rope()
        kind = rope.get("rope_type", "default")
        if kind in ("default", "linear", "yarn"):
            return None
        if kind != "llama3":
            raise UsageError(f"rotary frequencies scaled by {kind!r} are unknown here; {UPSTREAM}")
        exponents = np.arange(0, self.head_dim, 2, dtype=np.float64) / self.head_dim
        wavelengths = 2 * math.pi * float(rope["rope_theta"]) ** exponents
        factor, low = float(rope["factor"]), float(rope["low_freq_factor"])
        high, old = float(rope["high_freq_factor"]), float(rope["original_max_position_embeddings"])
        smooth = np.clip((old / wavelengths - low) / (high - low), 0.0, 1.0)
        return (1 / ((1 - smooth) / factor + smooth)).astype(np.float32)

    def check_windows(self) -> None:
        """Raise UsageError if attention differs from what llama.cpp builds into the family."""
        layers, every = int(self.config["num_hidden_layers"]), self.family.looks_back
        usual = [
            "full_attention" if (layer + 1) % every == 0 else "sliding_attention"
            for layer in range(layers)
        ]
        scales = {self.head_dim}
        if layers == LARGEST[self.family.name]:
            scales = {int(self.config["hidden_size"]) // self.heads}
        local = (self.config.get("rope_parameters") or {}).get("sliding_attention", {})
        odd = {
            "layer_types": self.config.get("layer_types", usual) != usual,
            "query_pre_attn_scalar": self.config.get("query_pre_attn_scalar") not in scales,
            "rope_local_base_freq": local.get("rope_theta", 10_000.0) != 10_000.0
            or self.config.get("rope_local_base_freq", 10_000.0) != 10_000.0,
            "use_bidirectional_attention": bool(self.config.get("use_bidirectional_attention")),
            "attn_logit_softcapping": (self.family.name == "gemma2")
            != bool(self.config.get("attn_logit_softcapping")),
        }
        if names := [name for name, differs in odd.items() if differs]:
            raise UsageError(f"this {self.family.name} has an unusual {names[0]}; {UPSTREAM}")

    def _windows(self) -> dict[str, int | float]:
        """The window of the layers that have one, and the bounds that logits are bent to."""
        if not self.family.looks_back:
            return {}
        bounds = {
            name: float(value)
            for name in ("attn_logit_softcapping", "final_logit_softcapping")
            if (value := self.config.get(name))
        }
        return {"attention.sliding_window": int(self.config["sliding_window"]), **bounds}

    def _rope(self) -> Mapping[str, Any]:
        rope = dict(self.config.get("rope_parameters") or self.config.get("rope_scaling") or {})
        rope = dict(rope.get("full_attention") or rope)
        rope.setdefault("rope_theta", self.config.get("rope_theta", 10_000.0))
        rope.setdefault("rope_type", rope.get("type", "default"))
        return rope
