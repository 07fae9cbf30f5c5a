"""Sentences that say what is kept from whom stand in the documents, and each has its test."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from nomoat.aggregation.protocol.messages import Ready
from nomoat.aggregation.secagg.parameters import Policy
from nomoat.server.community.settings import Settings

ROOT = Path(__file__).parents[2]
THREATS, PROTOCOL, README = "docs/threat-model.md", "docs/protocol.md", "README.md"
# (document, its § or "" for none, the sentence, the tests that fail if it is not so)
# ruff: noqa: E501 - names of tests are as long as they are
SENTENCES = [
    (THREATS, "", "`nomoat status` and `nomoat sent` show among how many your last update was masked",
     ("client/cli/test_commands.py::test_status_says_how_the_last_update_was_hidden_and_among_how_many",
      "client/cli/test_renderings.py::test_the_sent_log_says_what_left_and_how_it_was_hidden")),
    (THREATS, "", "A community has no setting for it; your machine refuses an offer that assumes less "
     "than a tenth",
     ("docs/test_sentences.py::test_nobody_has_a_setting_for_how_many_may_collude",
      "aggregation/secagg/test_lying_coordinator.py"
      "::test_a_session_that_assumes_fewer_corrupt_than_pinned_is_refused")),
    (THREATS, "", "(`nomoat join --min-participants`) sets them higher: a session of fewer is refused",
     ("hostile/test_sequences.py::test_an_owners_own_minimum_counts_whatever_the_community_named",)),
    (THREATS, "", "`nomoat join --yes` joins no such community without `--accept-weak`; the same goes "
     "for one that masks nothing",
     ("client/cli/test_commands.py::test_what_is_weak_is_accepted_by_its_own_name_or_not_at_all",)),
    (THREATS, "", '`nomoat status`, `sent` and `up` say "weak"',
     ("client/cli/test_commands.py::test_status_says_how_the_last_update_was_hidden_and_among_how_many",
      "client/cli/test_renderings.py::test_the_sent_log_says_what_left_and_how_it_was_hidden",
      "server/test_host.py::test_up_says_how_the_updates_of_a_round_were_hidden")),
    (THREATS, "", "and so does the card of a community's adapter",
     ("serving/cli/test_adapters.py"
      "::test_a_version_is_written_with_its_history_and_a_card_of_the_hub",)),
    (THREATS, "", "and one that is older than the log of what left, or than the community's receipts",
     ("client/volunteer/test_assemble.py"
      "::test_a_folder_put_back_from_a_backup_is_noticed_and_waits_for_another_version",)),
    (THREATS, "", "can be left out of a chain that is written anew, unseen",
     ("client/sent/test_log.py"
      "::test_a_chain_written_anew_misses_what_has_no_receipt_and_shows_what_has",)),
    (THREATS, "", "the command says so each time",
     ("client/cli/test_renderings.py::test_verification_ends_with_its_verdict",)),
    (README, "", "a chain written anew without lines that have no receipt is not noticed",
     ("client/sent/test_log.py"
      "::test_a_chain_written_anew_misses_what_has_no_receipt_and_shows_what_has",)),
    (PROTOCOL, "§2.4", "The size of a head is checked before msgpack opens it",
     ("aggregation/protocol/test_wire.py"
      "::test_oversized_heads_are_refused_before_they_are_parsed",)),
    (PROTOCOL, "§2.4", "text has no control characters but tabs and ends of lines",
     ("client/test_peer_text.py::test_a_message_whose_text_has_control_bytes_is_refused",)),
    (PROTOCOL, "§3.2", "Every packet of a round, request or answer, travels with a *seal*",
     ("end_to_end/line/test_exchange.py::test_a_request_its_community_did_not_seal_is_not_answered",
      "end_to_end/line/test_exchange.py::test_a_reply_whose_seal_does_not_hold_is_refused_by_name")),
    (PROTOCOL, "§4.1", "our volunteers use one of a few fixed phrases",
     ("client/round/test_session.py"
      "::test_every_request_in_every_phase_gets_work_an_answer_or_a_fixed_word",)),
    (PROTOCOL, "§5.4", "is declined, and the owner is told both figures",
     ("client/membership/test_agreement.py"
      "::test_a_task_that_asks_for_more_is_declined_with_both_figures",)),
    (PROTOCOL, "§5.4", "trained in smaller pieces within that memory, or declined",
     ("client/training/test_memory_fit.py"
      "::test_a_round_takes_no_more_memory_than_the_sheet_said_whatever_is_free",
      "client/volunteer/test_agreed_memory.py"
      "::test_a_task_beyond_the_memory_that_was_agreed_to_is_declined_with_the_reason")),
    (PROTOCOL, "§6.2", "the same adapter under other settings is another one",
     ("hostile/test_many_rounds.py"
      "::test_one_adapter_measured_under_other_settings_counts_as_another_measurement",)),
    (PROTOCOL, "§6.4", "It trains in the round after the pinned one only, from the adapter of the "
     "version that stands only",
     ("hostile/test_lineage.py"
      "::test_an_adapter_with_one_value_changed_is_no_version_and_is_not_trained_from",
      "hostile/test_lineage.py::test_no_round_is_begun_before_the_end_of_the_one_before_is_signed")),
    (PROTOCOL, "§15.5", "name the dealer",
     ("aggregation/secagg/test_bad_volunteers.py"
      "::test_a_dealer_whose_shares_do_not_make_its_secret_is_found_and_named",)),
    (README, "", "not masked, single numbers: steps, tokens, rank, losses, seconds",
     ("docs/test_sentences.py::test_who_is_ready_tells_these_numbers_and_no_others",)),
]  # fmt: skip


def paragraph(document: str, section: str) -> str:
    """A document, or its paragraph of that number, with single blanks."""
    text = (ROOT / document).read_text("utf-8")
    if section:
        found = re.search(rf"\*\*{section}\*\*.*?(?=\*\*§|\n## |\Z)", text, re.S)
        assert found, f"{document} has no {section}"
        text = found[0]
    return " ".join(text.split())


@pytest.mark.parametrize(
    ("document", "section", "sentence", "tests"),
    SENTENCES,
    ids=[f"{document}{section}:{sentence[:30]}" for document, section, sentence, _ in SENTENCES],
)
def test_a_sentence_stands_where_it_is_looked_for_and_has_its_tests(
    document: str, section: str, sentence: str, tests: tuple[str, ...]
) -> None:
    assert " ".join(sentence.split()) in paragraph(document, section)
    for test in tests:
        file, _, name = test.partition("::")
        assert f"def {name}(" in (ROOT / "tests" / file).read_text("utf-8"), test


def test_nobody_has_a_setting_for_how_many_may_collude() -> None:
    assert not re.search("corrupt|collu|permille", str(Settings.model_json_schema()))
    assert Policy().min_corrupt_permille == 100


def test_who_is_ready_tells_these_numbers_and_no_others() -> None:
    told = {field.name for field in dataclasses.fields(Ready)}
    assert told == {"round", "steps", "tokens", "rank", "first_loss", "last_loss", "seconds"}
