"""Options of a command from the settings themselves: one a field, none written out by hand.

They are made when the command runs or shows its help: no other command pays for their imports.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import click
from typer.core import TyperCommand, TyperOption

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

    from nomoat.server.rounds.settings import SettingsTable

KINDS = {bool: click.BOOL, int: click.INT, float: click.FLOAT}  # all else is a text


def options_of(
    kind: type[SettingsTable], panel: str, leave_out: Iterable[str] = ()
) -> list[click.Parameter]:
    """An option for each field that `kind` itself names, None if it is not given.

    panel: the help's heading for them. A field's default stands in the help.
    """
    own = [name for name in kind.__annotations__ if name in kind.model_fields]
    missing = frozenset(leave_out)
    return [_option(n, kind.model_fields[n], panel) for n in own if n not in missing]


def settings_command(make: Callable[[], list[click.Parameter]]) -> type[TyperCommand]:
    """A kind of command, for `app.command(cls=…)`, with the options that `make` gives, too."""

    class SettingsCommand(TyperCommand):
        """A command whose options are a set of settings."""

        @functools.cached_property
        def _settings(self) -> list[click.Parameter]:
            return make()

        def get_params(self, ctx: click.Context) -> list[click.Parameter]:
            """All options, `--help` last."""
            return [*self.params, *self._settings, *super().get_params(ctx)[len(self.params) :]]

    return SettingsCommand


def takes_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Hide the `**given` of a command's signature; it gets the settings that were given."""
    signature = inspect.signature(command, eval_str=True)
    named = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
    own = {p.name for p in named}

    @functools.wraps(command)
    def run(**values: Any) -> None:
        command(**{k: v for k, v in values.items() if k in own or v is not None})

    run.__signature__ = signature.replace(parameters=named)  # type: ignore[attr-defined]
    return run


def _option(name: str, field: FieldInfo, panel: str) -> click.Parameter:
    from nomoat.server.rounds.settings import Flags

    dashed = name.replace("_", "-")
    kind = next((k for k in KINDS if field.annotation in (k, k | None)), str)
    usual = (f"--{dashed}/--no-{dashed}",) if kind is bool else (f"--{dashed}",)
    names = next((one.names for one in field.metadata if isinstance(one, Flags)), usual)
    return TyperOption(
        param_decls=[name, *names],
        type=KINDS.get(kind, click.STRING),
        is_flag=kind is bool,
        help=field.description,
        show_default=_shown(field.default),
        rich_help_panel=panel,
    )


def _shown(default: object) -> str | bool:
    """A default as the help names it; False for none."""
    if isinstance(default, bool):
        return "yes" if default else "no"
    if isinstance(default, tuple):
        return ",".join(map(str, default))
    return False if default is None else f"{default}"
