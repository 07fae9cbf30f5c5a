"""A card gives the rates of backdoors within the bound that docs/threat-model.md has."""

from __future__ import annotations

import re
from pathlib import Path

from nomoat.aggregation.secagg.in_words import NOT_COVERED

DOCS = Path(__file__).parents[2] / "docs"


def test_the_card_says_the_rates_that_the_threat_model_has() -> None:
    threats = (DOCS / "threat-model.md").read_text()
    measured = re.findall(r"\| backdoor_in_bound_\d+: [^|]* \| (\.\d+) ", threats)
    assert len(measured) == 2
    assert re.findall(r"\.\d\d", NOT_COVERED) == measured
