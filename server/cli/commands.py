"""The coordinator's commands, mounted: init, invite, down, backup, restore, …

`up` and `status` are the front door's: what they show is wider than this room.
"""

from __future__ import annotations

import typer

from nomoat.server.cli import adapters, backup, community, down, invite, rotate_key, volunteers
from nomoat.server.cli.options import DirCommand
from nomoat.server.cli.setting_options import settings_command

app = typer.Typer(add_completion=False)
app.command(cls=settings_command(community.init_options))(community.init)
app.command(cls=DirCommand)(invite.invite)
app.command(cls=DirCommand)(down.down)
app.command(cls=DirCommand)(backup.backup)
app.command()(backup.restore)
app.add_typer(backup.records, name="database")
app.command()(rotate_key.rotate_key)
app.add_typer(volunteers.app, name="volunteers")
app.add_typer(adapters.app, name="adapter")
