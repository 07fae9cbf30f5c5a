"""The commands of the pages, mounted: page, status and up."""

from __future__ import annotations

import typer

from nomoat.desk.cli import page, status, up

app = typer.Typer(add_completion=False)
app.registered_commands += status.app.registered_commands
app.registered_commands += up.app.registered_commands
app.add_typer(page.app, name="page")
