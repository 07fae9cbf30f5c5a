"""Prediction of the peak memory of training one adapter, before anything is loaded.

peak = overhead + weights + trained state + max(loss phase, backward phase). Activations are what
autograd keeps for the backward pass, counted tensor by tensor from transformers' decoder layer and
peft's LoRA layer; tests/lora/memory/test_prediction.py counts the same on a real model with
`saved_tensors_hooks`, benchmarks/memory.py compares the sum with the measured peak of a process.
"""

from __future__ import annotations

import math
from collections.abc import Set
from dataclasses import dataclass
from enum import Enum
from typing import Final

from nomoat.lora.model.shape import ALL_LINEAR, ModelShape

FP32: Final = 4  # bytes
STACKED_BYTES: Final = 9 * FP32  # of a value in a stack: see trained_bytes
MIB: Final = 1 << 20
CONTEXT_BYTES: Final = 850 * MIB  # of a CUDA context, kernels and libraries; 836 seen on an H100


class Weights(Enum):
    """Precision of the frozen base: (bytes per value of a linear map, compute bytes).

    nf4 with double quantisation, block 64 and 256: 4 bits + 8/64 + 32/(64·256) bits per value
    (Dettmers et al. 2023, arXiv:2305.14314, §3). int8: 1 byte, and one scale per output row.
    """

    FP32 = (4.0, 4)
    BF16 = (2.0, 2)
    INT8 = (1.0, 2)
    NF4 = ((4 + 8 / 64 + 32 / (64 * 256)) / 8, 2)

    @property
    def label(self) -> str:
        """For a person."""
        return {"FP32": "32-bit", "BF16": "16-bit", "INT8": "8-bit", "NF4": "4-bit"}[self.name]

    @property
    def linear_bytes(self) -> float:
        """Bytes per value of a linear map."""
        return float(self.value[0])

    @property
    def compute_bytes(self) -> int:
        """Bytes per value of activations, norms, embedding and output head."""
        return int(self.value[1])


class Optimizer(Enum):
    """Bytes of optimiser state per trained value."""

    ADAMW = 2 * FP32
    ADAMW_8BIT = 2


class Attention(Enum):
    """`SDPA` keeps outputs and log-sum-exp (a flash kernel); `EAGER` keeps the (T, T) weights."""

    SDPA = "sdpa"
    EAGER = "eager"


@dataclass(frozen=True, slots=True)
class TrainingShape:
    """One micro-batch and the way it is trained.

    `padded`: attention gets a mask (lora/training/train.py pads on the right and needs none).
    `autocast`: float32 factors are multiplied in compute dtype. `trained_share`: of the tokens,
    those that get logits; 1 is the worst case, plain text. `volunteers`: trained at once over one
    base (lora/training/together.py), `micro_batch` rows of each.
    """

    micro_batch: int
    seq_len: int
    rank: int
    target_modules: tuple[str, ...] = (ALL_LINEAR,)
    weights: Weights = Weights.BF16
    checkpointing: bool = False
    optimizer: Optimizer = Optimizer.ADAMW
    attention: Attention = Attention.SDPA
    padded: bool = False
    autocast: bool = False
    trained_share: float = 1.0
    volunteers: int = 1

    @property
    def factor_bytes(self) -> int:
        """Bytes per value that LoRA's A and B see."""
        return self.weights.compute_bytes if self.autocast else FP32

    @property
    def tokens(self) -> int:
        """N = C·B·T tokens in flight."""
        return self.volunteers * self.micro_batch * self.seq_len


@dataclass(frozen=True, slots=True)
class DeviceOverhead:
    """Bytes that the device adds of its own.

    `overhead_bytes`: measured before loading (resident memory of this process with its imports
    done; 0 where the budget already excludes it). `churn`: bytes the allocator leaves unused per
    byte of activations that pass through it in one step. `load_copy`: a changed dtype keeps the
    stored file mapped while it is converted. `quantises`: 8 and 4 bits are to be had.
    """

    overhead_bytes: int
    churn: float
    workspace_bytes: int
    load_copy: bool
    quantises: bool


def cpu_host(overhead_bytes: int, tight: bool = False) -> DeviceOverhead:
    """A CPU process; `tight`: with `nomoat.server.heap.return_freed_memory` in force.

    glibc finds a freed block of torch's 64-byte alignment again only once it has merged with its
    neighbours (its bugs 14581 and 30723), so a step's activations take fresh heap as they pass: one
    byte per byte, checkpointed or not. That, and 24 MiB of stacks and kernels at the first step,
    is fitted to benchmarks/memory.py at 10 M and 100 M parameters and checked at 1 B.
    """
    churn = 0.05 if tight else 1.0
    return DeviceOverhead(overhead_bytes, churn, 24 * MIB, load_copy=True, quantises=False)


def cuda_host() -> DeviceOverhead:
    """A CUDA device whose budget is what is free after its context exists.

    Blocks of the caching allocator are rounded to 2 MiB; cuBLAS keeps 32 MiB on Hopper, 8 before.
    """
    return DeviceOverhead(0, 0.05, 32 * MIB, load_copy=False, quantises=True)


@dataclass(frozen=True, slots=True)
class Prediction:
    """Peak bytes by cause; `total` is what has to fit."""

    overhead: int
    weights: int
    trained: int  # adapter, its gradient, optimiser state
    activations: int  # kept between forward and backward
    loss: int  # logits and their gradients
    backward: int  # one layer at work
    slack: int
    workspace: int
    loading: int

    @property
    def live(self) -> int:
        """Bytes of tensors alive at the peak of training."""
        return self.weights + self.trained + self.activations + max(self.loss, self.backward)

    @property
    def training(self) -> int:
        """Peak while training: the loss phase or the backward of one layer, whichever is more."""
        return self.overhead + self.live + self.slack + self.workspace

    @property
    def total(self) -> int:
        """Peak over loading and training."""
        return max(self.training, self.overhead + self.loading)


def predict(
    model: ModelShape, training: TrainingShape, host: DeviceOverhead, stored_bytes: int = 0
) -> Prediction:
    """Predict peak memory in bytes of training `model` as `training` says on `host`.

    `stored_bytes`: size of the weight files, if their dtype is not the one trained in.
    """
    weights = weight_bytes(model, training.weights)
    kept, loss = activation_bytes(model, training), loss_bytes(model, training)
    backward = backward_bytes(model, training)
    return Prediction(
        overhead=host.overhead_bytes,
        weights=weights,
        trained=trained_bytes(model, training),
        activations=kept,
        loss=loss,
        backward=backward,
        slack=round(host.churn * model.layers * layer_bytes(model, training)),
        workspace=host.workspace_bytes,
        loading=weights + (stored_bytes if host.load_copy else 0),
    )


def weight_bytes(model: ModelShape, weights: Weights) -> int:
    """Bytes of the frozen base in memory."""
    scales = 0.0
    if weights is Weights.INT8:
        scales = model.layers * sum(linear.d_out for linear in model.linears) * FP32
    linear = model.linear_parameters * weights.linear_bytes
    return round(linear + scales + model.other_parameters * weights.compute_bytes)


def trained_bytes(model: ModelShape, training: TrainingShape) -> int:
    """Bytes of the adapter, its gradient and the optimiser's state.

    Of several volunteers at once: values, start, two moments, the stacks and their gradients, and
    at a step the gathered gradient, its square's root and the update.
    """
    values = model.adapter_parameters(training.rank, training.target_modules)
    if training.volunteers == 1:
        return values * (FP32 + FP32 + training.optimizer.value)
    return values * training.volunteers * STACKED_BYTES


def activation_bytes(model: ModelShape, training: TrainingShape) -> int:
    """Bytes that stay from the forward to the backward pass, logits apart.

    With checkpointing each layer keeps only its input (N, d), and the last norm its own.
    Layer 1's first norm keeps nothing (its input needs no gradient); the last norm makes up for it.
    """
    casts = 0  # autocast keeps a copy of each factor in compute dtype
    if training.autocast:
        factors = model.adapter_parameters(training.rank, training.target_modules)
        casts = training.volunteers * factors * training.factor_bytes
    if not training.checkpointing:
        return model.layers * layer_bytes(model, training) + casts
    inputs = model.layers * model.hidden * training.weights.compute_bytes
    return training.tokens * (inputs + _norm_values(model.hidden, 1) * FP32) + casts


def layer_bytes(model: ModelShape, training: TrainingShape) -> int:
    """Bytes autograd keeps for one decoder layer (transformers' LlamaDecoderLayer, peft's Linear).

    A frozen linear keeps nothing but its weight; RMSNorm keeps its input in float32; LoRA's A keeps
    its input in float32, which in float32 training is a tensor that is there anyway.
    """
    c = training.weights.compute_bytes
    targets = {x.name: x for x in model.targets(training.target_modules)}
    per_token = _norm_values(model.hidden, 2) * FP32 + 3 * model.intermediate * c
    per_token += len(targets) * training.rank * training.factor_bytes
    per_token += _factor_input_bytes(model, targets.keys(), training)
    if training.weights is Weights.INT8:  # bitsandbytes keeps each linear's input as well
        per_token += sum(linear.d_in for linear in model.linears) * c
    return training.tokens * (per_token + _attention_bytes(model, training, "o_proj" in targets))


def _norm_values(width: int, count: int) -> int:
    """Values that `count` RMSNorms of this width keep per token: the input and one rsqrt each."""
    return count * (width + 1)


def _factor_input_bytes(model: ModelShape, targets: Set[str], training: TrainingShape) -> int:
    """Inputs of the A factors per token: a cast copy each, or in float32 the tensor itself."""
    if training.weights.compute_bytes != FP32:
        width = sum(x.d_in for x in model.linears if x.name in targets)
        return width * training.factor_bytes
    distinct = model.hidden if targets & {"q_proj", "k_proj", "v_proj"} else 0
    distinct += model.hidden if targets & {"gate_proj", "up_proj"} else 0
    distinct += model.intermediate if "down_proj" in targets else 0
    return distinct * FP32  # o_proj's input is the attention output, kept already


def _attention_bytes(model: ModelShape, training: TrainingShape, o_adapted: bool) -> int:
    """Kept per token by attention: q, k, v, output and log-sum-exp, or the weights themselves.

    With a mask (or in eager mode) keys and values are repeated to all heads, and each layer keeps
    its own (B, 1, T, T) mask in compute dtype.
    """
    c = training.weights.compute_bytes
    q, kv = model.heads * model.head_dim, model.kv_heads * model.head_dim
    kept = (q + kv) * FP32 + (model.heads + model.kv_heads) * FP32 if model.qk_norm else 0
    if training.attention is Attention.EAGER:
        probabilities = FP32 + (c if c != FP32 else 0)
        output = q * FP32 if o_adapted and c == FP32 else 0
        return kept + 3 * q * c + output + model.heads * training.seq_len * probabilities
    if training.padded:
        return kept + (4 * q + training.seq_len) * c + model.heads * FP32
    return kept + (2 * q + 2 * kv) * c + model.heads * FP32


def loss_bytes(model: ModelShape, training: TrainingShape) -> int:
    """Peak of cross entropy over N·V logits, in its backward: log-probabilities, the gradient of
    nll_loss and that of log_softmax, float32 each (torch's decomposition; none works in place).
    """
    return 3 * FP32 * math.ceil(training.tokens * training.trained_share) * model.vocab


def backward_bytes(model: ModelShape, training: TrainingShape) -> int:
    """Peak that the backward of one layer adds, recomputing that layer first if checkpointed."""
    c = training.weights.compute_bytes
    gradients = model.intermediate * (2 * c + FP32) + 2 * model.hidden * FP32
    again = layer_bytes(model, training) if training.checkpointing else 0
    dequantised = 0
    if training.weights in (Weights.INT8, Weights.NF4):
        dequantised = max(linear.d_out * linear.d_in for linear in model.linears) * c
    return training.tokens * gradients + again + dequantised
