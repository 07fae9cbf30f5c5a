"""The sizes of a causal language model, read from its config before a single weight is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from nomoat.aggregation.errors import UsageError

# One decoder layer of these families is: RMSNorm, q/k/v/o, RMSNorm, gated MLP (transformers 5,
# modeling_llama.py and the files generated from it). What differs is listed in _traits.
GATED_FAMILIES: Final = ("llama", "mistral", "qwen2", "qwen3", "smollm3")
ALL_LINEAR: Final = "all-linear"


@dataclass(frozen=True, slots=True)
class Linear:
    """One linear map of a decoder layer: W is (d_out, d_in); bias adds d_out values."""

    name: str
    d_out: int
    d_in: int
    bias: bool = False

    @property
    def parameters(self) -> int:
        """Values in W and its bias."""
        return self.d_out * self.d_in + (self.d_out if self.bias else 0)


@dataclass(frozen=True)
class ModelShape:
    """Sizes that decide memory: vocabulary V, width d, MLP width f, layers L, heads, linear maps.

    `tied`: the output head is the embedding matrix itself. `qk_norm`: queries and keys of each head
    are normalised too.
    """

    vocab: int
    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    tied: bool
    linears: tuple[Linear, ...]
    qk_norm: bool

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> ModelShape:
        """Read a transformers config (the dict of config.json).

        Raises UsageError if the family is unknown: a guess would break the promise that what
        `join` accepts also fits.
        """
        family = str(config.get("model_type", "?"))
        if family not in GATED_FAMILIES:
            raise UsageError(
                f"memory need of model family {family!r} is not known before loading; "
                f"known: {', '.join(GATED_FAMILIES)}"
            )
        d, heads = _count(config, "hidden_size"), _count(config, "num_attention_heads")
        kv_heads = int(config.get("num_key_value_heads") or heads)
        head_dim = int(config.get("head_dim") or d // heads)
        f = _count(config, "intermediate_size")
        qkv_bias, o_bias, mlp_bias = _biases(family, config)
        q, kv = heads * head_dim, kv_heads * head_dim
        linears = (
            Linear("q_proj", q, d, qkv_bias),
            Linear("k_proj", kv, d, qkv_bias),
            Linear("v_proj", kv, d, qkv_bias),
            Linear("o_proj", d, q, o_bias),
            Linear("gate_proj", f, d, mlp_bias),
            Linear("up_proj", f, d, mlp_bias),
            Linear("down_proj", d, f, mlp_bias),
        )
        return cls(
            vocab=_count(config, "vocab_size"),
            hidden=d,
            intermediate=f,
            layers=_count(config, "num_hidden_layers"),
            heads=heads,
            kv_heads=kv_heads,
            head_dim=head_dim,
            tied=bool(config.get("tie_word_embeddings", False)),
            linears=linears,
            qk_norm=family == "qwen3",
        )

    @cached_property
    def linear_parameters(self) -> int:
        """Values in all adapted-or-not linear maps of all layers; what 4-bit loading quantises."""
        return self.layers * sum(linear.parameters for linear in self.linears)

    @cached_property
    def other_parameters(self) -> int:
        """Embedding, output head unless tied, and norms: never quantised."""
        matrices = 1 if self.tied else 2
        per_layer = 2 * self.hidden + (2 * self.head_dim if self.qk_norm else 0)
        norms = self.layers * per_layer + self.hidden
        return matrices * self.vocab * self.hidden + norms

    @property
    def parameters(self) -> int:
        """All values of the base model."""
        return self.linear_parameters + self.other_parameters

    def targets(self, target_modules: tuple[str, ...]) -> tuple[Linear, ...]:
        """The linear maps of one layer that an adapter touches; UsageError for an unknown name."""
        if not target_modules or target_modules == (ALL_LINEAR,):
            return self.linears
        known = {linear.name for linear in self.linears}
        if unknown := sorted(set(target_modules) - known):
            raise UsageError(
                f"target module {unknown[0]!r} is not in this model; it has "
                f"{', '.join(linear.name for linear in self.linears)}"
            )
        return tuple(linear for linear in self.linears if linear.name in target_modules)

    def adapter_parameters(self, rank: int, target_modules: tuple[str, ...]) -> int:
        """Trained values: Σ r (d_in + d_out) over targets and layers."""
        per_layer = sum(rank * (x.d_in + x.d_out) for x in self.targets(target_modules))
        return self.layers * per_layer


def _count(config: Mapping[str, Any], key: str) -> int:
    value = config.get(key)
    if type(value) is not int or value < 1:
        raise UsageError(f"model config has no usable {key!r} (found {value!r})")
    return value


def _biases(family: str, config: Mapping[str, Any]) -> tuple[bool, bool, bool]:
    """(q/k/v, o, MLP) biases."""
    if family == "qwen2":  # transformers writes them into the layer, not into the config
        return True, False, False
    attention = bool(config.get("attention_bias", False))
    return attention, attention, bool(config.get("mlp_bias", False))
