"""A README that the Hugging Face Hub accepts: front matter it validates, then the text.

https://huggingface.co/docs/hub/model-cards. The hub checks some of it on upload; all that it
checks can be checked here without a network.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from nomoat.aggregation.errors import BadData, UsageError

TAGS: Final = ("lora", "federated-learning", "nomoat")
# The identifiers of https://huggingface.co/docs/hub/repositories-licenses that language models
# have; any other license is "other" with its name beside it.
LICENSES: Final = frozenset(
    {
        *(
            "apache-2.0",
            "mit",
            "unlicense",
            "wtfpl",
            "mpl-2.0",
            "afl-3.0",
            "artistic-2.0",
            "cc0-1.0",
        ),
        *("openrail", "bigscience-bloom-rail-1.0", "bigcode-openrail-m", "other", "unknown", "cc"),
        *("cc-by-3.0", "cc-by-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0", "cc-by-nc-4.0"),
        *("cc-by-nc-sa-4.0", "gpl-3.0", "agpl-3.0", "lgpl-3.0", "bsd", "bsd-2-clause"),
        *(
            "bsd-3-clause",
            "gemma",
            "llama2",
            "llama3",
            "llama3.1",
            "llama3.2",
            "llama3.3",
            "llama4",
        ),
    }
)
Relation = Literal["adapter", "merge", "quantized", "finetune"]


@dataclass(frozen=True)
class CardFacts:
    """All that a card states beside its text. losses: name → held-out nats per token.

    base_id: the base's id on the hub; "" where it has none, and then the hub cannot link it.
    """

    name: str
    base_id: str
    license: str
    relation: Relation = "adapter"
    language: str = ""
    losses: Mapping[str, float] = field(default_factory=dict)


def is_hub_id(name: str) -> bool:
    """Tell whether the hub accepts `name` as a repository's: OWNER/NAME, or NAME."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils._validators import validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True


def front_matter(facts: CardFacts) -> dict[str, Any]:
    """The metadata of a card; UsageError if the base's id is none."""
    if facts.base_id and not is_hub_id(facts.base_id):
        raise UsageError(f"{facts.base_id!r} is no id of the hub: it is OWNER/NAME")
    data: dict[str, Any] = {"pipeline_tag": "text-generation", "tags": list(TAGS)}
    if facts.relation == "adapter":
        data["library_name"] = "peft"
    if facts.base_id:
        data |= {"base_model": facts.base_id, "base_model_relation": facts.relation}
        data["tags"] += [f"base_model:{facts.relation}:{facts.base_id}"]
    if facts.license.lower() in LICENSES:
        data["license"] = facts.license.lower()
    elif facts.license:
        data |= {"license": "other", "license_name": _plain(facts.license)}
    if facts.language:
        data["language"] = facts.language
    if facts.losses:
        data["model-index"] = [{"name": facts.name, "results": [_results(facts)]}]
    return data


def card(facts: CardFacts, text: str) -> str:
    """The README: front matter as YAML between two lines of ---, then `text`."""
    from huggingface_hub import ModelCardData

    given = front_matter(facts)
    index = given.pop("model-index", None)
    data = ModelCardData(**given)
    if index is not None:
        data["model-index"] = index
    return f"---\n{data.to_yaml()}\n---\n\n{text}"


def check(text: str) -> None:
    """BadData if the hub would refuse a card, or could not show where its model comes from."""
    from huggingface_hub import ModelCard

    try:
        data: Any = ModelCard(text, ignore_metadata_errors=False).data.to_dict()
    except Exception as problem:  # noqa: BLE001 - yaml's errors and huggingface_hub's
        reason = " ".join(str(problem).split())[:160]
        raise BadData(f"the card's front matter cannot be read: {reason}") from None
    for key in ("license", "base_model", "base_model_relation", "pipeline_tag", "tags"):
        if not data.get(key):
            raise BadData(f"the card says nothing of {key}")
    if not is_hub_id(str(data["base_model"])):
        raise BadData(f"base_model {data['base_model']!r} is no id of the hub")
    if data["license"] not in LICENSES:
        raise BadData(f"license {data['license']!r} is none that the hub knows")
    if data["license"] == "other" and not data.get("license_name"):
        raise BadData("license other needs a license_name")


def _results(facts: CardFacts) -> dict[str, Any]:
    return {
        "task": {"type": "text-generation"},
        "dataset": {"type": "held-out", "name": "rows held out by the community"},
        "metrics": [
            {"type": "loss", "name": f"{name} (nats per token)", "value": round(value, 6)}
            for name, value in facts.losses.items()
        ],
    }


def _plain(text: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-") or "unnamed"
