"""What an owner has set reaches the parts that keep to it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from builders import community_info, train_task
from nomoat.aggregation.protocol import wire
from nomoat.aggregation.protocol.adapter import Adapter, AdapterSpec, LayerSpec
from nomoat.aggregation.protocol.enrolment import bind, community_id
from nomoat.aggregation.protocol.history.key_changes import CommunityKeys
from nomoat.aggregation.protocol.lineage import Version, sign
from nomoat.aggregation.protocol.messages import Decline, TrainSettings
from nomoat.aggregation.protocol.roster import Event, Roster, SignedEntry, append, extend
from nomoat.aggregation.protocol.round_end import LineagePage, sign_end
from nomoat.aggregation.protocol.signing import SigningKey
from nomoat.aggregation.secagg.diary import Mark
from nomoat.client.connection.coordinator_api import CoordinatorClient
from nomoat.client.connection.https import Endpoint
from nomoat.client.home import Home
from nomoat.client.membership.pinned_lineage import PinnedLineage
from nomoat.client.membership.roster_cache import DAY_S, RosterCache
from nomoat.client.membership.roster_file import RosterFile
from nomoat.client.round.session import RoundSession
from nomoat.client.round.update_store import DiskUpdateStore
from nomoat.client.round.work import RoundStep, TrainWork
from nomoat.client.sent.log import SentMessage
from nomoat.client.sent.log_file import SentLog
from nomoat.client.settings import VolunteerSettings
from nomoat.client.volunteer.kit import Kit
from nomoat.client.volunteer.own_rules import RulesWatch, round_session

COMMUNITY = SigningKey(b"c" * 32)
KEYS = [SigningKey(bytes([i + 1]) * 32) for i in range(4)]
NOW = 1_800_000_000.0
SPEC = AdapterSpec((LayerSpec("q", 4, 3, 2),), 2, 4.0, target_modules=("q",))
START = Adapter(SPEC, np.zeros(SPEC.size, np.float32))
TASK = train_task(START, settings=TrainSettings(local_steps=2))

ASKED = {"adapter_values": SPEC.size, "local_steps": 2, "batch_size": 8, "seq_len": 512}


def joined() -> list[SignedEntry]:
    roster, entries = Roster.empty(CommunityKeys(COMMUNITY.public)), []
    for number, key in enumerate(KEYS):
        node = ec.derive_private_key(7000 + number, ec.SECP384R1())
        who = bind(f"vol{number}", key, node, COMMUNITY.public)
        entries.append(append(roster, Event.JOIN, who, COMMUNITY, number))
        roster = extend(roster, entries[-1:])
    return entries


def first_task(
    folder: Path,
    changes: dict[str, float],
    seen: list[tuple[int, float]],
    **options: Any,
) -> RoundStep:
    """The answer of vol0 to a task at NOW; for the options see `at_work`."""
    return at_work(folder, changes, seen, **options)[2].receive(TASK)


def at_work(
    folder: Path,
    changes: dict[str, float],
    seen: list[tuple[int, float]],
    *,
    left: tuple[int, ...] = (),
    kept: bool = False,
    **asked: int,
) -> tuple[Kit, RosterCache, RoundSession]:
    """vol0 at NOW, before its first task. seen: (entries, days before NOW they came), in order.

    left: rounds in which a masked update left, by the log; kept: the diary has one, of round 1.
    asked: what the community said on joining that it would ask for, where not what the task does.
    """
    community = Home(folder).folder(COMMUNITY.public)
    community.save_info(community_info(**{**ASKED, **asked}, public=COMMUNITY.public))
    made = VolunteerSettings(address="h:1", name="vol0", data=Path("d"), base="pocket")
    community.save(made.model_copy(update=changes))
    file, entries = RosterFile(community.root), joined()
    for count, days in seen:
        file.append(entries[len(file.entries()) :][:count], NOW - days * DAY_S)
    coordinator = CoordinatorClient(Endpoint("h", 1), KEYS[0], COMMUNITY.public)
    kit = Kit(community, community.load(), coordinator)
    cache = RosterCache(file, coordinator, lambda: NOW)
    store = DiskUpdateStore(community.held)
    store.begin()
    for number in left:
        SentLog(community.root).record(
            SentMessage(NOW, "town", "h:1", "sa.masked", number, 9, "", masked=True)
        )
    if kept:
        store.mark((Mark("masked", b"s" * 32, 1, 1, b"v" * 32, b"a" * 32),))
    start = Version(
        0, community_id(COMMUNITY.public), START.digest, b"b" * 32, 0, "fedavg", (), None, None,
        None, "", 1,
    )  # fmt: skip
    record = sign(start, COMMUNITY)
    page = LineagePage((record,), sign_end(0, record, COMMUNITY))
    (community.root / "lineage.rec").write_bytes(wire.encode(page).head)
    lineage = PinnedLineage(community.root, coordinator)
    return kit, cache, round_session(kit, cache, store, lineage)


def test_an_owners_edit_binds_the_next_task_without_a_restart(tmp_path: Path) -> None:
    kit, cache, session = at_work(tmp_path, {}, [(4, 0.0)])
    watch = RulesWatch(kit, cache, session)
    for changes, work in (({"known_peers": 1}, False), ({"max_steps": 1}, False), ({}, True)):
        kit.folder.save(kit.settings.model_copy(update=changes))
        watch.look()
        assert (session.receive(TASK).work is not None) == work


def test_settings_that_cannot_be_read_leave_the_rules_as_they_were(tmp_path: Path) -> None:
    kit, cache, session = at_work(tmp_path, {"known_peers": 1}, [(4, 0.0)])
    watch = RulesWatch(kit, cache, session)
    kit.folder.settings.write_text("known_peers = 'none'")
    watch.look()
    assert session.receive(TASK).work is None


def test_an_owner_may_allow_fewer_rounds_a_day_than_were_agreed_to(tmp_path: Path) -> None:
    _, _, session = at_work(tmp_path, {"rounds_a_day": 1}, [(4, 0.0)])
    assert session._limits.may_train(TASK) is None
    assert "1 rounds were trained" in str(session._limits.may_train(replace(TASK, round=2)))


@pytest.mark.parametrize(
    ("settings", "seen", "takes_part"),
    [
        ({}, [(4, 0.0)], True),  # by default nobody has to be known
        ({"known_peers": 1}, [(4, 0.0)], False),
        ({"known_peers": 1}, [(1, 99.0), (3, 29.0)], False),  # it knows itself alone for so long
        ({"known_peers": 1}, [(2, 31.0), (2, 0.0)], True),
        ({"known_peers": 2}, [(2, 31.0), (2, 0.0)], False),
        ({"known_peers": 2, "known_days": 7.0}, [(2, 31.0), (2, 8.0)], True),
    ],
)
def test_a_policy_can_require_peers_that_this_machine_has_known_for_long(
    tmp_path: Path, settings: dict[str, float], seen: list[tuple[int, float]], takes_part: bool
) -> None:
    step = first_task(tmp_path, settings, seen)
    if takes_part:
        assert isinstance(step.work, TrainWork)
    else:
        assert isinstance(step.answer, Decline)
        assert "known_peers in settings.toml" in str(step.complaint)


@pytest.mark.parametrize(
    ("asked", "complaint"),
    [
        ({"local_steps": 1}, "steps 2; 1 and 20 % were agreed to"),
        ({"seq_len": 256}, "tokens a step 4096; 2048 and 20 %"),
        ({"adapter_values": SPEC.size // 2}, "values in the adapter"),
    ],
)
def test_a_task_beyond_what_was_agreed_to_is_declined_with_the_figures(
    tmp_path: Path, asked: dict[str, int], complaint: str
) -> None:
    step = first_task(tmp_path, {}, [(4, 0.0)], **asked)
    assert step.answer == Decline(1, "settings exceed my limits")
    assert complaint in str(step.complaint)


@pytest.mark.parametrize(
    ("left", "kept", "restored"),
    [((), False, False), ((1,), True, False), ((1,), False, True), ((1, 1), True, True)],
)
def test_a_folder_put_back_from_a_backup_is_noticed_and_waits_for_another_version(
    tmp_path: Path, left: tuple[int, ...], kept: bool, restored: bool
) -> None:
    """`held` has fewer marks than masked updates have left by the log."""
    step = first_task(tmp_path, {}, [(4, 0.0)], left=left, kept=kept)
    assert [mark.kind for mark in step.marks] == ["lost"] * restored
    spent = Decline(1, "trained from this version already")
    assert (step.answer == spent) == (restored or kept)
