"""How long a row a model reads is found in whatever its family calls it, and in its tables."""

from __future__ import annotations

from typing import Any

import pytest

from nomoat.aggregation.errors import UsageError
from nomoat.lora.model.context import check_length, context_length, context_of


@pytest.mark.parametrize(
    ("config", "length"),
    [
        ({"n_positions": 48}, 48),
        ({"max_position_embeddings": 256, "n_ctx": 8}, 256),
        ({"max_seq_len": 64}, 64),
        ({"context_length": 96}, 96),
        ({"max_position_embeddings": -1}, None),  # XLNet: no end
        ({"max_position_embeddings": None, "n_positions": 7}, 7),
        ({"max_position_embeddings": True}, None),
        ({}, None),
        ({"max_position_embeddings": 9, "text_config": {"max_position_embeddings": 5}}, 5),
        ({"max_position_embeddings": 9, "text_config": {}, "vision_config": {"n_ctx": 2}}, 9),
    ],
)
def test_a_configuration_says_it_in_the_words_of_its_family(
    config: dict[str, Any], length: int | None
) -> None:
    assert context_length(config) == length


def test_rows_of_roberta_begin_behind_its_padding() -> None:
    from transformers import AutoModelForCausalLM, RobertaConfig

    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2}
    config = RobertaConfig(
        vocab_size=50, num_hidden_layers=1, max_position_embeddings=66, pad_token_id=1, **sizes
    )
    config.is_decoder = True
    assert context_of(AutoModelForCausalLM.from_config(config)) == 64


def test_a_longer_row_is_refused_with_the_length_that_works() -> None:
    check_length(48, 48)
    check_length(None, 100_000)
    with pytest.raises(UsageError, match=r"^the model reads 48 tokens; --seq-len 48$"):
        check_length(48, 49)
