"""`nomoat up` of a restored community, before its rounds: the port is open to ask its members."""

from __future__ import annotations

import contextlib
import datetime
import threading
import time
from collections.abc import Callable, Iterator

from nomoat.server.backup import begun as progress
from nomoat.server.backup.restoring import finish, said
from nomoat.server.community.folder import describe, renew_certificate
from nomoat.server.community.opened import OpenCommunity
from nomoat.server.port.listening import ListenOptions, serving
from nomoat.server.recovery.gathering import Gathering
from nomoat.server.recovery.port import make_app
from nomoat.server.rounds.watching import RoundProgress, Watcher
from nomoat.server.state_file import FILE, StateFile

LOOK_S = 0.2
PHASE = "asking members what they hold"


def ask_members(
    community: OpenCommunity,
    stop: threading.Event,
    tell: Callable[[str], None],
    watcher: Watcher,
) -> bool:
    """Bring back what members hold, if the community was restored; False if it was stopped first.

    Then it is said under the community's key what stands. tell: is given a line for each change.
    """
    begun = progress.read(community.folder)
    if begun is None:
        return True
    taken = f"{community.folder.root} is already up in another process"
    with community.alone(taken):
        if not said(community, begun):
            community.registrar.database.closed = ""  # what comes is kept; nothing is signed
            gathering = Gathering(community, begun)
            with _open(community, gathering, watcher) as file:
                if not _asked(gathering, begun.wait_s, stop, tell, file):
                    return False
            begun = gathering.begun
        finish(community, begun, int(time.time()))
        tell(community.versions.get(None).version.note)
    return True


def _asked(
    gathering: Gathering,
    wait_s: int,
    stop: threading.Event,
    tell: Callable[[str], None],
    file: StateFile,
) -> bool:
    """Wait until everybody was heard, or for so long; False if it was stopped."""
    until, last = time.monotonic() + wait_s, (-1, -1)
    latest = time.strftime("%H:%M", time.localtime(time.time() + wait_s))
    while True:
        heard, of = gathering.heard()
        if (heard, of) != last:
            last = heard, of
            tell(f"{heard} of {of} members said what they hold; rounds go on by {latest}")
        file.progress(RoundProgress(gathering.state.ended.round, PHASE, heard, of))
        now = time.monotonic()
        if (heard == of or now >= until) and gathering.idle(now):
            return True
        if stop.wait(LOOK_S):
            return False


@contextlib.contextmanager
def _open(community: OpenCommunity, gathering: Gathering, watcher: Watcher) -> Iterator[StateFile]:
    """Serve the members' port while the block runs."""
    folder, settings, key = community.folder, community.settings, community.registrar.key
    renew_certificate(folder, settings, datetime.datetime.now(datetime.UTC))
    authority, values = folder.authority_certificate.read_bytes(), community.initial().spec.size
    app = make_app(gathering, community.registrar.keys, describe(settings, key, authority, values))
    listening = ListenOptions(
        settings.server.host, settings.server.port, folder.server_certificate, folder.server_key
    )
    with serving(app, listening) as port:
        yield StateFile(folder.root / FILE, port, watcher, dict)
