"""The help of `nomoat`: its commands, each under the person who gives it."""

from __future__ import annotations

import inspect
import itertools

import click
import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup
from typer.models import ArgumentInfo, CommandInfo
from typer.utils import get_params_from_function

MORE = "More"
LONGEST = 400  # characters of a command's line

PEOPLE = {
    "To begin": ("try", "simulate", "join", "init", "doctor"),
    "If you take part (a volunteer)": (
        "run",
        "status",
        "pause",
        "resume",
        "finish",
        "leave",
        "agree",
        "accept-restore",
        "sent",
        "credit",
        "appeal",
        "logs",
        "identity",
        "service",
    ),
    "If you keep a community (a coordinator)": (
        "up",
        "down",
        "invite",
        "volunteers",
        "backup",
        "restore",
        "database",
        "rotate-key",
        "page",
    ),
    "To use what came out": ("chat", "serve", "adapter"),
    "To look closer": ("compare", "data", "verify", "evidence"),
}


def grouped(app: typer.Typer) -> None:
    """Put each command of `app` under its person, in the order of PEOPLE."""
    for command in app.registered_commands:
        command.rich_help_panel = person_of(_name(command))
    for group in app.registered_groups:
        group.rich_help_panel = person_of(str(group.name))
        own = group.typer_instance.info.cls if group.typer_instance is not None else None
        kind = own if isinstance(own, type) else TyperGroup
        group.cls = type(kind.__name__, (_WholeLines, kind), {})
    _list_arguments_once(app)


class _WholeLines(click.Group):
    """A group whose plain help says of each command its whole first sentence."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands, none cut short."""
        named = [(name, self.commands[name]) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl([(name, each.get_short_help_str(LONGEST)) for name, each in named])


class _ArgumentsOnce:
    """Leaves the list of arguments to typer, which click 8.5 would write a second time."""

    def format_arguments(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write nothing."""


def _list_arguments_once(app: typer.Typer) -> None:
    for command in app.registered_commands:
        kind = command.cls or TyperCommand
        if not issubclass(kind, _ArgumentsOnce):
            command.cls = type(kind.__name__, (_ArgumentsOnce, kind), {})
    for group in app.registered_groups:
        if group.typer_instance is not None:
            _list_arguments_once(group.typer_instance)


def person_of(command: str) -> str:
    """Return the heading a command stands under."""
    return next((person for person, commands in PEOPLE.items() if command in commands), MORE)


def _name(command: CommandInfo) -> str:
    assert command.callback is not None
    return command.name or command.callback.__name__.replace("_", "-")


def _explain_arguments(command: click.Command) -> None:
    """Give arguments the help they were declared with, which click 8.5 takes from typer's."""
    if isinstance(command, click.Group):
        for each in command.commands.values():
            _explain_arguments(each)
    unexplained = [one for one in command.params if isinstance(one, TyperArgument)]
    if unexplained and command.callback is not None:
        declared = get_params_from_function(inspect.unwrap(command.callback))
        for one in unexplained:
            info = declared[one.name].default if one.name in declared else None
            one.help = info.help if isinstance(info, ArgumentInfo) else one.help


class ByPerson(TyperGroup):
    """A group whose help lists commands in the order of PEOPLE, in plain text under headings."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of this name, its arguments explained."""
        found = super().get_command(ctx, cmd_name)
        if found is not None:
            _explain_arguments(found)
        return found

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Every command, person by person."""
        order = {name: at for at, name in enumerate(itertools.chain(*PEOPLE.values()))}
        return sorted(super().list_commands(ctx), key=lambda name: order.get(name, len(order)))

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands under their headings."""
        known = {name: self.commands[name] for name in self.list_commands(ctx)}
        for person, commands in PEOPLE.items():
            rows = [
                (name, known[name].get_short_help_str(LONGEST))
                for name in commands
                if name in known
            ]
            with formatter.section(person):
                formatter.write_dl(rows)
