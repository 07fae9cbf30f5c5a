"""The pocket model's card and loss curve, written from what a pretraining run measured."""

from dataclasses import dataclass

from nomoat.simulations.pocket.packages import Package
from nomoat.simulations.pocket.training import Point, Recipe

BAR_CHARS = 40


@dataclass(frozen=True)
class PretrainingRun:
    """One pretraining run, as used and measured; losses in nats per token."""

    packages: tuple[Package, ...]
    recipe: Recipe
    parameters: int
    documents: int
    tokens: int  # of the documents trained on, one epoch
    held_out_documents: int
    held_out_tokens: int
    seconds: float  # of training, evaluations included, by the clock
    cpu_seconds: float  # of the same, by the processor: less on a machine busy with other work
    curve: tuple[Point, ...]
    rounded_loss: float  # held-out, after rounding the weights to float16
    software: str


def loss_csv(run: PretrainingRun) -> str:
    """The loss curve as comma-separated values."""
    rows = [f"{at.step},{at.train_loss:.4f},{at.held_out_loss:.4f}" for at in run.curve]
    return "\n".join(["step,train_loss,held_out_loss", *rows, ""])


def model_card(run: PretrainingRun) -> str:
    """The model's README.md."""
    sections = [_head(run), _use(), _training(run), _curve(run), _data(run), _limits()]
    return "\n\n".join(sections) + "\n"


def _head(run: PretrainingRun) -> str:
    return f"""\
---
license: apache-2.0
language: en
library_name: transformers
pipeline_tag: text-generation
---
# nomoat pocket

A Llama of {run.parameters / 1e6:.2f} million parameters that writes the first paragraph of a
Python docstring, given the signature. It was trained from scratch on the docstrings of
{len(run.packages)} permissively licensed packages, so that a whole federated fine-tuning fits
into a test or a demonstration.

This card is written by `simulations/pocket/pretrain.py`; its figures are that run's own."""


def _use() -> str:
    return """\
## Intended use

Demonstrations and tests of federated LoRA fine-tuning. The fine-tuning data, the docstrings of the
standard library of the user's own Python, were kept out of this training, so that there is
something left to learn.

A document is `<s>`, the signature, a newline, the summary, `</s>`; there is no chat template, and
the tokenizer adds neither `<s>` (1) nor `</s>` (2) by itself. The weights are stored in float16 and
meant to be used in float32:

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForCausalLM.from_pretrained(folder, dtype="float32")
```"""


def _training(run: PretrainingRun) -> str:
    recipe = run.recipe
    last = run.curve[-1]
    epochs = recipe.steps * recipe.batch_tokens / run.tokens
    rows = {
        "seed": recipe.seed,
        "steps": recipe.steps,
        "batch": f"at most {recipe.batch_tokens} tokens, documents of similar length",
        "documents": f"{run.documents} ({run.tokens} tokens; about {epochs:.1f} epochs)",
        "held out": f"{run.held_out_documents} documents ({run.held_out_tokens} tokens)",
        "optimizer": f"AdamW, {recipe.learning_rate:g} after {recipe.warmup_steps} steps of "
        f"warm-up, then a cosine; weight decay {recipe.weight_decay:g}",
        "time": f"{run.seconds:.0f} s by the clock, {run.cpu_seconds:.0f} s of processor time, "
        f"threads: {recipe.threads}",
        "software": run.software,
        "final training loss": f"{last.train_loss:.3f} nats per token",
        "final held-out loss": f"{last.held_out_loss:.3f} nats per token",
        "held-out loss in float16": f"{run.rounded_loss:.3f} nats per token",
    }
    table = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    return f"""\
## Training

| | |
| --- | --- |
{table}

The same packages, seed, steps and threads on the same kind of processor are meant to give the same
weights; a test holds a miniature run to that, this run was not repeated:

```
pip install --no-deps -r simulations/pocket/packages.txt
python -m nomoat.simulations.pocket.pretrain --out DIR --seed {recipe.seed} \
--steps {recipe.steps} --threads {recipe.threads}
```"""


def _curve(run: PretrainingRun) -> str:
    top = max(at.held_out_loss for at in run.curve)
    rows = [
        f"{at.step:6d}  {at.train_loss:5.3f}     {at.held_out_loss:5.3f}  "
        + "#" * round(BAR_CHARS * at.held_out_loss / top)
        for at in run.curve
    ]
    body = "\n".join(["  step  train  held-out", *rows])
    return f"## Loss, in nats per token\n\n```\n{body}\n```\n\nThe same is in loss.csv."


def _data(run: PretrainingRun) -> str:
    rows = [
        f"| {package.name} | {package.version} | {package.licence} | {len(package.docstrings)} |"
        for package in run.packages
    ]
    return f"""\
## Data

First paragraphs of docstrings, of more than 15 and less than 400 characters, each once. Left out:
every summary that the standard library has too, every module that is mostly a copy of one of its
modules, tests, and code that a package carries from elsewhere. Licences are as stated in the
packages' own metadata.

| package | version | licence | docstrings |
| --- | --- | --- | --- |
{chr(10).join(rows)}"""


def _limits() -> str:
    return """\
## Limits

It writes docstring-like English and knows nothing. What it writes can be wrong and can repeat its
training text. Only the standard library of the Python that ran the training was kept out: a later
Python's new text may paraphrase what is in here. Held-out documents come from the same packages as
the training documents, often from the same module, so the held-out loss says how well it knows
these packages, not how well it does on others. It has not been evaluated for any real use."""
