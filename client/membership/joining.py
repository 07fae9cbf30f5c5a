"""Joining, the volunteer's side: the right base model, enrolment, roster. No Flower here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable

from nomoat.aggregation.errors import BadData
from nomoat.aggregation.protocol import roster, wire
from nomoat.aggregation.protocol.enrolment import Standing, node_public_der
from nomoat.aggregation.protocol.receipts import packet_digest
from nomoat.client.connection import coordinator_api
from nomoat.client.connection.coordinator_api import (
    CoordinatorClient,
    check_own_entry,
    extend_roster,
)
from nomoat.client.connection.https import Endpoint
from nomoat.client.connection.succession.followed_keys import FollowedKeys
from nomoat.client.data.split import Split
from nomoat.client.home import CommunityFolder, Home
from nomoat.client.identity.keys import load_identity, node_key
from nomoat.client.membership.roster_file import RosterFile
from nomoat.client.round.update_store import DiskUpdateStore
from nomoat.client.sent.log import SentMessage
from nomoat.client.sent.log_file import SentLog
from nomoat.client.settings import VolunteerSettings
from nomoat.lora.data.row_counts import DROPPED_SHARE

PREVIEW_LIMIT_S = 300.0  # a chat template is a program, and may not end
# A tokenizer needs no torch, and importing it takes three quarters of a preview's processor time.
WITHOUT_TORCH = "import sys; sys.modules['torch'] = None; from nomoat.__main__ import main; main()"


def coordinator_of(
    home: Home, folder: CommunityFolder, address: str, ca: bytes
) -> CoordinatorClient:
    """A member's client of the coordinator at `address`, under the keys its community comes to."""
    keys = folder.keys()
    return CoordinatorClient(
        Endpoint.at(address, ca=ca),
        load_identity(home.identity),
        keys.founding,
        followed=FollowedKeys(folder.root, keys),
    )


def logged(folder: CommunityFolder, to: str) -> Callable[[wire.Packet], None]:
    """Write a request about membership, which holds nothing of the data, into the log."""

    def record(packet: wire.Packet) -> None:
        kind, digest = wire.peek_kind(packet, folder.name()), packet_digest(packet).hex()
        SentLog(folder.root).record(
            SentMessage(time.time(), folder.name(), to, kind, 0, packet.size, digest)
        )

    return record


def preview(settings: VolunteerSettings, seq_len: int) -> str:
    """Preview what the data will teach, as `nomoat data preview` does."""
    return f"\n{_previewed(settings, seq_len)}\n"


def check_rows(settings: VolunteerSettings, split: Split, seq_len: int) -> None:
    """Raise BadData if more than a fifth of the rows has nothing to learn at `seq_len`.

    Rows of fewer bytes than that fit whatever the tokenizer: then it is not asked.
    """
    with split.train.open("rb") as rows:
        long = sum(len(row) > seq_len for row in rows)
    if long <= DROPPED_SHARE * split.train_rows:
        return
    found = json.loads(_previewed(settings, seq_len, "--json"))
    lost = found["rows"] - found["usable"]
    if lost > DROPPED_SHARE * found["rows"]:
        why = "; ".join(f"{each['count']}: {each['reason']}" for each in found["dropped"])
        raise BadData(
            f"{settings.data}: {lost} of {found['rows']} rows would not be used at the "
            f"community's {seq_len} tokens: {why}; --allow-dropping joins with what is left"
        )


def _previewed(settings: VolunteerSettings, seq_len: int, *further: str) -> str:
    """Run `nomoat data preview` in a process of its own.

    A tokenizer brings hundreds of megabytes that a volunteer who waits for a round must not hold.
    """
    what = ("data", "preview", str(settings.data), "--model", settings.base, *further)
    command = (*what, "--seq-len", str(seq_len), "--given")
    done = _run("-c", WITHOUT_TORCH, *command, settings=settings)
    if done.returncode != 0:  # an error, or a tokenizer that needs torch after all
        done = _run("-m", "nomoat", *command, settings=settings)
    if done.returncode != 0:
        raise BadData(done.stderr.strip().rpartition("\n")[2].removeprefix("nomoat: "))
    return done.stdout


def _run(*arguments: str, settings: VolunteerSettings) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            [sys.executable, "-P", *arguments],
            stdin=subprocess.DEVNULL,  # a base is a stranger's: nothing of it may ask for a "y"
            capture_output=True,
            text=True,
            env={**os.environ, "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1"},
            timeout=PREVIEW_LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise BadData(
            f"the data could not be shown within {PREVIEW_LIMIT_S:.0f} seconds; try nomoat data "
            f"preview {settings.data} --model {settings.base}"
        ) from None


def join(
    home: Home, folder: CommunityFolder, settings: VolunteerSettings, token: bytes, ca: bytes
) -> tuple[Standing, str]:
    """Enrol with an invitation's token; the standing and its reason, checked against the roster.

    What is written before the coordinator has answered is only this machine's keys.
    """
    coordinator = coordinator_of(home, folder, settings.address, ca)
    if not folder.node_key.exists():  # else it was a member: a diary it has no more was lost
        DiskUpdateStore(folder.held).begin()
    key = node_key(folder.node_key)
    leaving = logged(folder, settings.address)
    standing, reason = coordinator_api.enrol(coordinator, settings.name, key, token, leaving)
    if standing is Standing.APPROVED:
        file = RosterFile(folder.root)
        known = roster.extend(roster.Roster.empty(folder.keys()), file.entries())
        known, added = extend_roster(coordinator, known, int(time.time()))
        file.append(added, time.time())
        check_own_entry(known, coordinator, settings.name, node_public_der(key.public_key()))
    return standing, reason


def tell_that_we_leave(home: Home, folder: CommunityFolder, erase: bool = False) -> None:
    """Tell the coordinator, which is to `erase` what it can; NomoatError if it is not told."""
    coordinator = coordinator_of(home, folder, folder.load().address, folder.info().ca)
    (coordinator_api.erase if erase else coordinator_api.leave)(coordinator, int(time.time()))
