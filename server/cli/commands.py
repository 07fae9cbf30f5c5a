"""The coordinator's commands, mounted: init, up, invite, backup, restore, volunteers, adapter."""

from __future__ import annotations

import typer

from nomoat.server.cli import adapters, backup, community, invite, up, volunteers
from nomoat.server.cli.setting_options import settings_command

app = typer.Typer(add_completion=False)
app.command(cls=settings_command(community.init_options))(community.init)
app.command()(up.up)
app.command()(invite.invite)
app.command()(backup.backup)
app.command()(backup.restore)
app.add_typer(volunteers.app, name="volunteers")
app.add_typer(adapters.app, name="adapter")
