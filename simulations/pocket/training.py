"""Training the pocket model: its shape, its batches, its schedule."""

import math
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from transformers import LlamaConfig, LlamaForCausalLM

PAD, BOS, EOS = 0, 1, 2
IGNORED = -100  # the label of a position without loss

Document = list[int]  # token ids, from <s> to </s>


@dataclass(frozen=True)
class Point:
    """One row of the loss curve, in nats per token."""

    step: int
    train_loss: float  # mean since the row before
    held_out_loss: float


@dataclass(frozen=True)
class Recipe:
    """Everything about the training that is chosen, not measured."""

    steps: int
    seed: int = 0
    threads: int = 1
    vocabulary: int = 2048
    hidden: int = 128
    layers: int = 6
    heads: int = 4
    intermediate: int = 344
    batch_tokens: int = 1024  # padding included
    document_tokens: int = 192  # longer documents are cut
    learning_rate: float = 2.5e-3
    warmup_steps: int = 200
    weight_decay: float = 0.1
    clip_norm: float = 1.0
    held_out_share: float = 0.01
    evaluations: int = 24


def build_model(recipe: Recipe) -> LlamaForCausalLM:
    """A freshly initialised Llama; the weights follow torch's global seed."""
    config = LlamaConfig(
        vocab_size=recipe.vocabulary,
        hidden_size=recipe.hidden,
        intermediate_size=recipe.intermediate,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.heads,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        pad_token_id=PAD,
        bos_token_id=BOS,
        eos_token_id=EOS,
    )
    return LlamaForCausalLM(config)


def epoch_batches(
    documents: Sequence[Document], batch_tokens: int, rng: random.Random
) -> list[list[Document]]:
    """Every document once, in batches of similar lengths and at most `batch_tokens` when padded."""
    order = sorted(rng.sample(documents, len(documents)), key=len)
    batches: list[list[Document]] = [[]]
    for document in order:
        if (len(batches[-1]) + 1) * len(document) > batch_tokens and batches[-1]:
            batches.append([])
        batches[-1].append(document)
    rng.shuffle(batches)
    return batches


def endless_batches(
    documents: Sequence[Document], batch_tokens: int, rng: random.Random
) -> Iterator[list[Document]]:
    """Epoch after epoch, each in another order."""
    while True:
        yield from epoch_batches(documents, batch_tokens, rng)


def batch_loss(model: LlamaForCausalLM, batch: Sequence[Document]) -> torch.Tensor:
    """Mean cross-entropy in nats over every token of the documents but <s>.

    Padding is on the right, where causal attention never looks: no mask is needed.
    """
    longest = max(map(len, batch))
    ids = torch.tensor([document + [PAD] * (longest - len(document)) for document in batch])
    labels = ids.masked_fill(ids == PAD, IGNORED)
    loss: torch.Tensor = model(input_ids=ids, labels=labels).loss
    return loss


def held_out_loss(
    model: LlamaForCausalLM, documents: Sequence[Document], batch_tokens: int
) -> float:
    """Mean cross-entropy over the documents' tokens, in nats per token."""
    total, tokens = 0.0, 0
    with torch.inference_mode():
        for batch in epoch_batches(documents, batch_tokens, random.Random(0)):
            count = sum(len(document) - 1 for document in batch)
            total += float(batch_loss(model, batch)) * count
            tokens += count
    return total / tokens


def learning_rate(recipe: Recipe, step: int) -> float:
    """Linear warm-up, then a cosine from the peak to a twentieth of it; by steps, not by time."""
    warm = min(1.0, (step + 1) / recipe.warmup_steps)
    cosine = 0.5 * (1 + math.cos(math.pi * step / recipe.steps))
    return recipe.learning_rate * warm * (0.05 + 0.95 * cosine)


def train(
    model: LlamaForCausalLM,
    documents: Sequence[Document],
    held_out: Sequence[Document],
    recipe: Recipe,
) -> list[Point]:
    """Train in place and tell the loss curve, its points evenly spread over the steps."""
    optimizer = torch.optim.AdamW(
        model.parameters(), betas=(0.9, 0.95), weight_decay=recipe.weight_decay
    )
    batches = endless_batches(documents, recipe.batch_tokens, random.Random(recipe.seed))
    count = min(recipe.evaluations, recipe.steps)
    milestones = {round(recipe.steps * part / count) for part in range(1, count + 1)}
    curve: list[Point] = []
    recent: list[float] = []
    for step in range(recipe.steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(recipe, step)
        loss = batch_loss(model, next(batches))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_norm)
        optimizer.step()
        recent.append(float(loss.detach()))
        if step + 1 in milestones:
            held = held_out_loss(model, held_out, recipe.batch_tokens)
            curve.append(Point(step + 1, sum(recent) / len(recent), held))
            print(curve[-1], flush=True)
            recent.clear()
    return curve


def steps_within(seconds: float, documents: Sequence[Document], recipe: Recipe) -> int:
    """Return the number of steps that fit into the time, measured on a throw-away model."""
    model, probe = build_model(recipe), 20
    batches = endless_batches(documents, recipe.batch_tokens, random.Random(recipe.seed))
    optimizer = torch.optim.AdamW(model.parameters())
    started = time.monotonic()
    for _ in range(probe):
        optimizer.zero_grad()
        batch_loss(model, next(batches)).backward()
        optimizer.step()
    return max(1, int(seconds * probe / (time.monotonic() - started)))
