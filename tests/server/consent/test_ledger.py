"""Terms are numbered when they change, and who agreed to stricter ones is not asked to train."""

from __future__ import annotations

import datetime
import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from nomoat.aggregation.errors import UsageError
from nomoat.aggregation.protocol import wire
from nomoat.aggregation.protocol.community.terms import TermsEdition
from nomoat.aggregation.protocol.enrolment import Enrol, bind
from nomoat.aggregation.protocol.invitation import Claims
from nomoat.aggregation.protocol.messages import TrainSettings
from nomoat.aggregation.protocol.signing import SigningKey
from nomoat.aggregation.protocol.work_terms import WorkTerms
from nomoat.server.community.folder import Folder, create
from nomoat.server.community.membership_rules import AgreedTerms
from nomoat.server.community.opened import OpenCommunity
from nomoat.server.community.settings import (
    BaseModelSettings,
    CommunityRoundSettings,
    CommunitySettings,
    Settings,
)
from nomoat.server.consent.editions import agreeing
from nomoat.server.consent.ledger import ConsentLedger

STRICT, LOOSE = AgreedTerms(secure=True, least=8), AgreedTerms(secure=True, least=3)
WORK = WorkTerms(TrainSettings(), 10, 24, bytes(64))
EDITION = TermsEdition(1, 0, True, 8, False, WORK, bytes(64))


@pytest.fixture
def community(tmp_path: Path) -> OpenCommunity:
    settings = Settings(
        community=CommunitySettings(name="town"),
        base=BaseModelSettings(model="m", folder=Path("m"), hash="ab" * 32, bytes=1),
        rounds=CommunityRoundSettings(seed="00" * 32, min_volunteers=8),
    )
    create(Folder(tmp_path / "t"), settings, datetime.datetime.now(datetime.UTC), b"\7" * 32)
    return OpenCommunity.open(tmp_path / "t")


def enrol(community: OpenCommunity, name: str, number: int) -> bytes:
    """Its node key, as members know it."""
    registrar = community.registrar
    claims = Claims("h:1", b"c" * 32, registrar.key.public, bytes([number] * 16), 1, 2**33)
    token = registrar.invite(claims).token()
    node = ec.derive_private_key(8000 + number, ec.SECP384R1())
    binding = bind(name, SigningKey(bytes([number]) * 32), node, registrar.key.public)
    registrar.enrol(wire.encode(Enrol(token, binding)).head, 5)
    return binding.node_key


def test_changed_terms_have_another_number_and_the_same_ones_keep_theirs(
    community: OpenCommunity,
) -> None:
    ledger = community.consents
    assert [ledger.edition(EDITION, at).number for at in (10, 20)] == [1, 1]
    other = TermsEdition(1, 0, True, 3, False, WORK, bytes(64))
    assert (ledger.edition(other, 30).number, ledger.edition(other, 40).at) == (2, 30)
    community.keep_terms()  # a restart in between loses no number
    assert ledger.edition(EDITION, 50).number == 3


def test_members_who_agreed_to_more_are_asked_again_and_take_no_part_until_they_agree(
    community: OpenCommunity,
) -> None:
    ledger, where = community.consents, community.folder.settings
    ledger.keep(STRICT, where, announce=False)
    ada, _ben = enrol(community, "ada", 1), enrol(community, "ben", 2)
    with pytest.raises(UsageError, match=r"2 volunteers \(ada, ben\) .*nomoat up --new-terms"):
        ledger.keep(LOOSE, where, announce=False)
    ledger.keep(LOOSE, where, announce=True)
    number = ledger.edition(EDITION, 10).number
    cyd = enrol(community, "cyd", 3)
    willing = {"ada": 1, "ben": 2, "cyd": 3}
    assert agreeing(ledger, willing) == {"cyd": 3}
    with pytest.raises(UsageError, match=f"edition {number} of the terms holds now, not 9"):
        ledger.agree(ada, 9)
    ledger.agree(ada, number)
    ledger.agree(cyd, number)
    assert agreeing(ledger, willing) == {"ada": 1, "cyd": 3}
    ledger.keep(LOOSE, where, announce=True)  # a restart asks ada no more
    assert ledger.refusing() == {"ben"}


def test_a_file_of_before_there_were_editions_is_read(community: OpenCommunity) -> None:
    enrol(community, "ada", 1)
    before = {"announced": {"secure": True, "least": 8}, "members": {}}
    community.folder.agreed.write_text(json.dumps(before))
    ledger = ConsentLedger(community.folder.agreed, community.registrar)
    ledger.keep(STRICT, community.folder.settings, announce=False)
    assert ledger.edition(EDITION, 1).number == 1
