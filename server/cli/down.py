"""`nomoat down`: the coordinator that is up in a folder is ended."""

from __future__ import annotations

from pathlib import Path

import typer

from nomoat.server.cli.options import Here, say

ENDS_WITHIN_S, LOOK_S = 60.0, 0.1


def down(folder: Here = Path()) -> None:
    """End the coordinator that is up in this folder, as Ctrl-C does; nothing is lost."""
    import os
    import signal
    import time

    from nomoat.aggregation.errors import NomoatError
    from nomoat.server.community.folder import Folder
    from nomoat.server.overview import up_process

    name = Folder(folder).load().community.name  # its records may be away
    process = up_process(folder)
    if process is None:
        say(f"{name} is not up")
        return
    os.kill(process, signal.SIGTERM)
    until = time.monotonic() + ENDS_WITHIN_S
    while up_process(folder) is not None:
        if time.monotonic() > until:
            raise NomoatError(f"{name} did not end within {ENDS_WITHIN_S:.0f} s; process {process}")
        time.sleep(LOOK_S)
    typer.echo(f"{name} is down")
