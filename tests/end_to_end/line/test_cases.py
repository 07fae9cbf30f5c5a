"""Why somebody is held, over the real port: any member recomputes it, the accused answers it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from typer.testing import CliRunner

from nomoat.aggregation.errors import NomoatError, Refused, RemoteProtocolError, UsageError
from nomoat.aggregation.protocol import wire
from nomoat.aggregation.protocol.enrolment import Enrol, bind
from nomoat.aggregation.protocol.invitation import from_link
from nomoat.aggregation.protocol.roster import Event
from nomoat.aggregation.secagg.audit.evidence import digest_of, to_bytes
from nomoat.client.cli.conduct.commands import app
from nomoat.client.connection.coordinator_api import CoordinatorClient
from nomoat.client.home import CommunityFolder
from nomoat.client.membership import standing
from nomoat.server.conduct.cases import Cases
from tests.aggregation.secagg.audit.liars import session
from tests.aggregation.secagg.conftest import Federation


class Accused:
    """A member that has sent too much in an audited session, and is held for it."""

    def __init__(self, town: Any) -> None:
        made = session(Federation, {3}, size=400)
        made.run()
        self.key, self.name = made.keys[3], f"eve{town.population}"
        town.population += 1
        node = ec.derive_private_key(7000 + town.population, ec.SECP384R1())
        public = town.folder.key().public
        binding = bind(self.name, self.key, node, public)
        token = from_link(town.link()).token()
        town.registrar.enrol(wire.encode(Enrol(token, binding)).head, int(time.time()))
        self.says = made.server.blamed[made.ids[3]]
        self.data = to_bytes(made.server.proofs[made.ids[3]])
        self.coordinator = CoordinatorClient(town.endpoint(), self.key, public)
        self.cases = Cases(town.registrar.database)
        self.cases.keep(self.name, 3, self.data, int(time.time()))
        self.hold(town, self.data)

    def hold(self, town: Any, data: bytes) -> None:
        reason = f"its update is 2.9 times the bound; evidence {digest_of(data).hex()}"
        town.registrar.order(self.name, Event.HOLD, reason, int(time.time()))


@pytest.fixture(scope="module")
def accused(town: Any) -> Accused:
    return Accused(town)


def test_any_member_recomputes_what_another_is_held_for(
    accused: Accused, people: Any, tmp_path: Path
) -> None:
    (person,) = people(1)
    found = standing.recomputed(CommunityFolder(tmp_path), person.coordinator, accused.name)
    assert found.accused == accused.key.public
    assert found.says == accused.says
    with pytest.raises(NomoatError, match="names no evidence"):
        standing.recomputed(CommunityFolder(tmp_path), person.coordinator, person.name)
    with pytest.raises(UsageError, match="nobody called"):
        standing.recomputed(CommunityFolder(tmp_path), person.coordinator, "nobody")


def test_the_accused_sees_its_evidence_and_appeals_and_its_status_says_so(
    accused: Accused, people: Any, tmp_path: Path
) -> None:
    folder = CommunityFolder(tmp_path)
    assert standing.recomputed(folder, accused.coordinator, accused.name).round == 3
    assert standing.last_appeal(folder) is None
    standing.appeal(folder, accused.coordinator, " my optimiser broke\n")
    kept, sent = accused.cases.appeal_of(accused.name), standing.last_appeal(folder)
    assert kept is not None
    assert sent is not None
    assert kept.text == sent.text == "my optimiser broke"
    (person,) = people(1)
    with pytest.raises(Refused, match="only who is held"):
        standing.appeal(folder, person.coordinator, "me too")
    for text in ("", " \n", "x" * 2001):
        with pytest.raises(UsageError, match="1 to 2000"):
            standing.appeal(folder, accused.coordinator, text)


def test_a_stranger_is_shown_no_evidence(town: Any, accused: Accused) -> None:
    from nomoat.aggregation.protocol.signing import SigningKey
    from nomoat.client.connection import coordinator_api

    stranger = CoordinatorClient(town.endpoint(), SigningKey(b"s" * 32), town.folder.key().public)
    with pytest.raises(Refused, match="only members"):
        coordinator_api.evidence(stranger, digest_of(accused.data), int(time.time()))


def test_evidence_about_somebody_else_proves_nothing(
    town: Any, people: Any, accused: Accused, tmp_path: Path
) -> None:
    """A coordinator that names one volunteer's evidence in another's hold is found out."""
    (person,) = people(1)
    digest = digest_of(accused.data).hex()
    town.registrar.order(person.name, Event.HOLD, f"evidence {digest}", int(time.time()))
    with pytest.raises(RemoteProtocolError, match="somebody else"):
        standing.recomputed(CommunityFolder(tmp_path), person.coordinator, person.name)


def test_evidence_in_a_file_is_read_without_asking_anybody(
    accused: Accused, tmp_path: Path
) -> None:
    file = tmp_path / "x.evidence"
    file.write_bytes(accused.data)
    result = CliRunner().invoke(app, ["evidence", "--file", str(file)])
    assert result.exit_code == 0
    assert result.stdout.startswith(f"round 3: {accused.says}")
    for damaged in (accused.data[:-1], b"", accused.data[:200] + b"x" + accused.data[201:]):
        file.write_bytes(damaged)
        with pytest.raises(NomoatError):
            standing.of_file(file)


def test_what_a_community_says_of_audits_is_signed_and_older_ones_say_nothing(town: Any) -> None:
    from dataclasses import replace

    from nomoat.aggregation.protocol.terms.privacy_terms import PrivacyTerms, sign
    from nomoat.client.connection.coordinator_api import privacy_terms
    from nomoat.server.port.http_app import make_app
    from nomoat.server.port.listening import ListenOptions, serving

    public = town.folder.key().public
    assert privacy_terms(town.endpoint(), public) == PrivacyTerms()
    terms = sign(PrivacyTerms(audit_words=64), town.folder.key())
    listening = ListenOptions(
        "127.0.0.1", 0, town.folder.server_certificate, town.folder.server_key
    )
    for said in (terms, replace(terms, audit_words=0)):
        with serving(make_app(replace(town.desk, privacy=said)), listening) as port:
            endpoint = replace(town.endpoint(), port=port)
            if said == terms:
                assert privacy_terms(endpoint, public).audit_words == 64
                continue
            with pytest.raises(RemoteProtocolError, match="not signed by the community"):
                privacy_terms(endpoint, public)


def test_what_is_said_to_the_owner_tells_what_can_be_done() -> None:
    from nomoat.aggregation.protocol.enrolment import Standing

    held = standing.explained(Standing.HELD, f"too large; evidence {'ab' * 32}")
    assert "nomoat evidence recomputes that here; nomoat appeal answers it" in held
    assert "nomoat evidence" not in standing.explained(Standing.HELD, "rude")
    assert standing.explained(Standing.PENDING, "") == "pending by the coordinator"
