"""All commands of a volunteer, in the order in which `nomoat --help` shows them."""

from __future__ import annotations

import typer

from nomoat.client.cli import doctor, identity, join, pause, run, sent, service, status
from nomoat.client.cli.conduct import commands as conduct

app = typer.Typer(add_completion=False)
for part in (join, run, status, pause, sent, doctor, conduct):
    app.registered_commands += part.app.registered_commands
app.add_typer(service.app, name="service")
app.add_typer(identity.app, name="identity")
