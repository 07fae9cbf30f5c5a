"""Pretrain the pocket model: `python -m nomoat.simulations.pocket.pretrain --out DIR --steps N`.

It learns third-party docstrings; the packages of packages.txt must be installed in the running
environment. The same packages, seed, steps and threads give the same model. A document is
`<s>signature\\nsummary</s>`; federated fine-tuning uses the same plain template, the summary
being the completion.
"""

import argparse
import platform
import random
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import tokenizers
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from nomoat.simulations.pocket.card import PretrainingRun, loss_csv, model_card
from nomoat.simulations.pocket.corpus import Docstring, docstrings, standard_library
from nomoat.simulations.pocket.packages import Package, collect, read_list
from nomoat.simulations.pocket.training import (
    BOS,
    EOS,
    Document,
    Recipe,
    build_model,
    held_out_loss,
    steps_within,
    train,
)

SPECIAL_TOKENS = ["<pad>", "<s>", "</s>"]  # their ids are PAD, BOS and EOS


def template(item: Docstring) -> str:
    """The text of one document, without its <s> and </s>."""
    return f"{item.signature}\n{item.summary}"


def standard_library_summaries() -> list[str]:
    """Every summary of the running Python's standard library, its tests and copies included."""
    not_its_own = {"__pycache__", "dist-packages", "site-packages"}
    return [item.summary for item in docstrings(standard_library(), skip=not_its_own)]


def train_tokenizer(texts: Sequence[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE of `vocabulary` tokens; the same texts give the same tokenizer."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=alphabet,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    pad, bos, eos = SPECIAL_TOKENS
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=pad, bos_token=bos, eos_token=eos
    )


def prepare(
    packages: Sequence[Package], recipe: Recipe
) -> tuple[PreTrainedTokenizerFast, list[Document], list[Document]]:
    """The tokenizer and the encoded documents: to train on, and held out.

    The tokenizer is trained on the documents to train on alone.
    """
    texts = [template(item) for package in packages for item in package.docstrings]
    random.Random(recipe.seed).shuffle(texts)
    held_out = max(1, round(len(texts) * recipe.held_out_share))
    tokenizer = train_tokenizer(texts[held_out:], recipe.vocabulary)

    def encode(text: str) -> Document:
        ids: list[int] = tokenizer.encode(text, add_special_tokens=False)
        return [BOS, *ids, EOS][: recipe.document_tokens]

    documents = [encode(text) for text in texts]
    return tokenizer, documents[held_out:], documents[:held_out]


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    """Write the Hugging Face folder, the model itself rounded to what is stored, float16."""
    out.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(out)
    model.half().save_pretrained(out)
    model.float()
    (out / "model.safetensors").chmod(0o644)  # as the other files; its writer makes it 0600


def pretrain(
    packages: Sequence[Package], out: Path, recipe: Recipe, minutes: float | None = None
) -> PretrainingRun:
    """Train the tokenizer and the model, write the folder with its card, tell what was measured.

    With `minutes`, the number of steps that fit into them replaces the recipe's.
    """
    torch.set_num_threads(recipe.threads)
    tokenizer, documents, held_out = prepare(packages, recipe)
    if minutes is not None:
        recipe = replace(recipe, steps=steps_within(minutes * 60, documents, recipe))
    print(f"{len(documents)} documents to learn, {recipe.steps} steps", flush=True)
    torch.manual_seed(recipe.seed)
    model = build_model(recipe)
    started, started_cpu = time.monotonic(), time.process_time()
    curve = train(model, documents, held_out, recipe)
    seconds, cpu_seconds = time.monotonic() - started, time.process_time() - started_cpu
    save(model, tokenizer, out)
    run = PretrainingRun(
        packages=tuple(packages),
        recipe=recipe,
        parameters=model.num_parameters(),
        documents=len(documents),
        tokens=sum(map(len, documents)),
        held_out_documents=len(held_out),
        held_out_tokens=sum(map(len, held_out)),
        seconds=seconds,
        cpu_seconds=cpu_seconds,
        curve=tuple(curve),
        rounded_loss=held_out_loss(model, held_out, recipe.batch_tokens),
        software=_software(),
    )
    write_report(run, out)
    return run


def write_report(run: PretrainingRun, out: Path) -> None:
    """Write loss.csv and README.md, the model card, beside the model."""
    (out / "loss.csv").write_text(loss_csv(run), encoding="utf-8")
    (out / "README.md").write_text(model_card(run), encoding="utf-8")


def _software() -> str:
    return (
        f"Python {platform.python_version()}, torch {torch.__version__}, "
        f"transformers {transformers.__version__}, tokenizers {tokenizers.__version__}"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Pretrain the pocket model.")
    parser.add_argument("--packages", type=Path, default=Path(__file__).parent / "packages.txt")
    parser.add_argument("--out", type=Path, required=True, help="the model's folder")
    length = parser.add_mutually_exclusive_group(required=True)
    length.add_argument("--steps", type=int, help="exact: repeats an earlier run")
    length.add_argument("--minutes", type=float, help="as many steps as fit, by a short trial")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args(arguments)
    packages = collect(read_list(given.packages), standard_library_summaries())
    recipe = Recipe(steps=given.steps or 1, seed=given.seed, threads=given.threads)
    pretrain(packages, given.out, recipe, given.minutes)


if __name__ == "__main__":
    main()
