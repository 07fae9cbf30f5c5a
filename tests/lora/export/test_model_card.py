"""Cards that the hub accepts, checked without it."""

from __future__ import annotations

from typing import Any

import pytest
from huggingface_hub import ModelCard

from nomoat.aggregation.errors import BadData, UsageError
from nomoat.lora.export.model_card import CardFacts, card, check

FACTS = CardFacts("readers 12", "org/my-llama", "Apache-2.0", losses={"held-out loss": 3.061})


def test_a_card_names_base_relation_license_tags_and_losses() -> None:
    text = card(FACTS, "# Readers\n")
    check(text)
    data: Any = ModelCard(text).data
    assert (data.base_model, data.license, data.library_name) == (
        "org/my-llama",
        "apache-2.0",
        "peft",
    )
    assert data.base_model_relation == "adapter"
    assert {"lora", "federated-learning", "nomoat"} <= set(data.tags)
    (result,) = data.eval_results
    assert (result.metric_type, result.metric_value) == ("loss", 3.061)
    assert text.endswith("# Readers\n")


def test_a_license_the_hub_does_not_know_is_other_with_its_name() -> None:
    text = card(CardFacts("x", "org/base", "My Own License v2"), "text")
    check(text)
    assert ModelCard(text).data.to_dict()["license_name"] == "my-own-license-v2"


@pytest.mark.parametrize("name", ["nomoat pocket model", "a/b/c", "-x/y", "org/na me"])
def test_a_base_that_is_no_hub_id_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="no id of the hub"):
        card(CardFacts("x", name, "mit"), "text")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (card(CardFacts("x", "", "mit"), ""), "base_model"),
        (card(CardFacts("x", "org/b", ""), ""), "license"),
        (card(FACTS, "").replace("apache-2.0", "apache2"), "none that the hub knows"),
        (card(FACTS, "").replace("org/my-llama", "my llama"), "no id of the hub"),
        ("---\nlicense: [\n---\n", "cannot be read"),
    ],
)
def test_a_card_that_the_hub_would_refuse_is_found_here(text: str, said: str) -> None:
    with pytest.raises(BadData, match=said):
        check(text)
