"""`nomoat rotate-key`: another key takes the community key's place, announced under both."""

from __future__ import annotations

import typer

from nomoat.server.cli.options import Folder, opened, say


def rotate_key(folder: Folder) -> None:
    """Change the community's key: between two rounds, signed by the old one and the new."""
    import contextlib
    import os
    import time

    from nomoat.aggregation.protocol.enrolment import fingerprint
    from nomoat.server.overview import up_process
    from nomoat.server.succession.rotation import ask, rotate

    community = opened(folder)
    name, founding = community.settings.community.name, community.registrar.keys.founding
    ask(community.folder, os.urandom(32))
    if up_process(folder) is not None:
        typer.echo(f"{name} changes its key when the present round has ended")
    else:
        with (
            contextlib.closing(community.registrar.database),
            community.alone(f"{folder} is being opened; try again"),
        ):
            after = rotate(community, int(time.time()))
        typer.echo(f"{name} has changed its key, for time {len(after.changes)}")
    say(f"its fingerprint stays {fingerprint(founding)}; members follow by themselves, invitations")
    say("go on as they are. Members of an older release are told to upgrade")
    say("no backup of before can be gone on with, since members refuse the old key")
    say(f"make one as soon as the key has changed: nomoat backup {folder} FILE")
