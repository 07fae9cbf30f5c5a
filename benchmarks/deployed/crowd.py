"""Many volunteers in one process: each with keys, home and connection of its own, no model.

    python -m deployed.crowd ROOT NUMBER BASE < a link

They enrol, poll, verify, sign and take part in secure aggregation with the product's own code; only
training and evaluation are replaced by arithmetic. Ends when its standard input does.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

import numpy as np

from nomoat.aggregation.protocol.enrolment import CommunityInfo
from nomoat.aggregation.protocol.invitation import from_link
from nomoat.aggregation.protocol.messages import MAX_RANK
from nomoat.aggregation.secagg.parameters import Policy
from nomoat.client.connection import coordinator_api
from nomoat.client.connection.answering import Answering
from nomoat.client.connection.coordinator_api import CoordinatorClient
from nomoat.client.connection.flower_client import ConnectionSettings
from nomoat.client.connection.https import Endpoint
from nomoat.client.connection.message_loop import serve
from nomoat.client.home import Home
from nomoat.client.identity.keys import identity, load_identity, node_key
from nomoat.client.membership.joining import join
from nomoat.client.membership.roster_cache import RosterCache, with_offered_roster
from nomoat.client.membership.roster_file import RosterFile
from nomoat.client.round.app import RequestHandler, volunteer_app
from nomoat.client.round.masked_session import MaskedSession, Membership
from nomoat.client.round.sealed_app import App, SealParties, sealed
from nomoat.client.round.session import RoundSession
from nomoat.client.round.training_origin import TrainingOrigin, version_by_round
from nomoat.client.round.work import EvaluateWork, TrainWork
from nomoat.client.settings import VolunteerSettings
from nomoat.lora.training.train import Trained
from nomoat.simulations.pooled_trainer import NoUpdateStore

STEP = np.float32(1e-3)


class Arithmetic:
    """In place of a model: training adds a constant, the loss is constant."""

    def train(self, work: TrainWork) -> Trained:
        """Move every value by STEP."""
        return Trained(work.local.adapter.vector + STEP, 1, 16, 3.0, 2.9, 0.0)

    def evaluate(self, work: EvaluateWork) -> tuple[float, int, float | None]:
        """The same for every adapter, so that each one is accepted."""
        return 3.0, 100, None


class Quiet:
    """A listener that keeps nothing."""

    def connected(self, node_id: int) -> None:
        """Nothing to note."""

    def lost(self, reason: str, retry_s: float) -> None:
        """Told on stderr: it should not happen here."""
        sys.stderr.write(f"line lost: {reason}\n")

    def working(self, kind: str) -> None:
        """Nothing to note."""

    def unsent(self, reason: str, retry_s: float) -> None:
        """Told by `lost`."""

    def withheld(self, kind: str, reason: str) -> None:
        """Told on stderr: it should not happen here."""
        sys.stderr.write(f"{kind} withheld: {reason}\n")

    def answered(self, kind: str, sent_bytes: int, late: bool) -> None:
        """Nothing to note."""


def participant(
    settings: VolunteerSettings,
    info: CommunityInfo,
    coordinator: CoordinatorClient,
    cache: RosterCache,
) -> App:
    """A volunteer's answers to its coordinator, all checks included."""
    policy = Policy(min_participants=info.min_participants, allow_weak=info.allow_weak)
    membership = Membership(
        coordinator.identity, cache.current, policy, lambda _session: os.urandom(32), info.secure
    )
    session = RoundSession(
        settings.name,
        info.base_hash,
        settings.limits(MAX_RANK),
        masking=MaskedSession(membership),
        origin=TrainingOrigin.announced(settings.name, version_by_round),
    )
    handler = RequestHandler(session, Arithmetic(), NoUpdateStore())
    parties = SealParties(coordinator.identity, info.public, info.base_hash)
    return sealed(with_offered_roster(volunteer_app(lambda _context: handler), cache), parties)


def enlist(root: Path, name: str, link: str, base: Path, stop: threading.Event) -> None:
    """Join as `name` and serve in a thread of its own until `stop`."""
    invitation = from_link(link)
    now = int(time.time())
    info = coordinator_api.look(
        coordinator_api.endpoint_of(invitation), invitation.claims.community, now
    )
    home = Home(root / name)
    folder = home.folder(info.public)
    settings = VolunteerSettings(
        address=invitation.claims.address, name=name, data=root, base=str(base), device="cpu"
    )
    identity(home.identity, os.urandom)
    folder.save_info(info)
    join(home, folder, settings, invitation.token(), info.ca)
    endpoint = Endpoint.at(settings.address, ca=info.ca)
    coordinator = CoordinatorClient(endpoint, load_identity(home.identity), info.public)
    cache = RosterCache(RosterFile(folder.root), coordinator)
    app = participant(settings, info, coordinator, cache)
    line = ConnectionSettings(endpoint, node_key(folder.node_key))
    work = threading.Thread(target=serve, args=(line, Answering(app), stop, Quiet()), daemon=True)
    work.start()


def main() -> None:
    """Enlist everybody, then wait for the end of standard input."""
    root, number, base = Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    link = sys.stdin.readline().strip()
    stop = threading.Event()
    for index in range(number):
        enlist(root, f"v{index:03d}", link, base, stop)
    sys.stdin.read()
    stop.set()


if __name__ == "__main__":
    main()
