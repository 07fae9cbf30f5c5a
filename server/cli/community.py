"""`nomoat init`: a community is made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nomoat.server.cli.options import Database, Folder, say
from nomoat.server.cli.setting_options import options_of, takes_settings

if TYPE_CHECKING:
    import click

    from nomoat.server.community.creation import Beginning, NewCommunity


def init_options() -> list[click.Parameter]:
    """One option for each setting of rounds, adapter and training."""
    from nomoat.server.community.settings import CommunityRoundSettings
    from nomoat.server.rounds import settings

    return [
        *options_of(CommunityRoundSettings, "Rounds", leave_out=("seed",)),
        *options_of(settings.RoundSettings, "Rounds", leave_out=("min_reports",)),
        *options_of(settings.ServerOptimizerSettings, "Server optimiser"),
        *options_of(settings.AdapterSettings, "Adapter"),
        *options_of(settings.TrainingSettings, "What a volunteer does in a round"),
    ]


@dataclass(frozen=True)
class InitOptions:
    """The options of `nomoat init`. settings: those that init_options() gives, where given."""

    name: str
    base: str | None
    beginning: Beginning | None
    about: str
    license: str
    evaluation: Path | None
    address: str
    approve: bool
    seed: str | None
    settings: dict[str, Any]
    database: str | None = None


@takes_settings
def init(  # noqa: PLR0913, PLR0917 - a command's options are its parameters
    context: typer.Context,
    folder: Folder,
    name: Annotated[str, typer.Option(help="The community's name.")],
    base: Annotated[
        str | None,
        typer.Option(help="Base model: a folder, hub id or GGUF file, or: pocket, smollm2."),
    ] = None,
    begin_with: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="WHICH",
            help="Begin with an adapter there is: another community's folder, a version or the "
            "link of one you have joined, a PEFT folder.",
        ),
    ] = None,
    about: Annotated[str, typer.Option(help="A line for those who are invited.")] = "",
    license_: Annotated[str, typer.Option("--license", help="The base model's licence.")] = "",
    evaluation: Annotated[
        Path | None, typer.Option("--eval", help="Rows kept for measuring versions.")
    ] = None,
    address: Annotated[
        str, typer.Option(help="HOST:PORT as volunteers reach it.")
    ] = "localhost:8443",
    approve: Annotated[
        bool, typer.Option("--approve", help="Volunteers wait for your approval.")
    ] = False,
    seed: Annotated[
        str | None,
        typer.Option(help="A number, as in simulate: the same federation again."),
    ] = None,
    database: Database = None,
    **settings: Any,
) -> None:
    """Make a community's folder: keys, certificate, settings, first adapter."""
    beginning = _beginning(context, begin_with, base)
    about_it = (name, base, beginning, about, license_, evaluation, address, approve, seed)
    _make(folder, InitOptions(*about_it, settings, database))


def _beginning(context: typer.Context, which: str | None, base: str | None) -> Beginning | None:
    """The adapter that --from names, found by the front door: this room knows no memberships."""
    from nomoat.aggregation.errors import UsageError

    if which is not None:
        find: Callable[[str, str | None], Beginning] = context.obj
        return find(which, base)
    if base is None:
        raise UsageError("say which base model with --base, or what to begin with with --from")
    return None


def _make(folder: Path, options: InitOptions) -> None:
    import datetime
    import os

    from pydantic import ValidationError

    from nomoat.aggregation.errors import UsageError
    from nomoat.aggregation.protocol.enrolment import fingerprint
    from nomoat.server import privacy_note
    from nomoat.server.community.creation import make
    from nomoat.storage.settings import first_error

    try:
        wanted = _wanted(options)
        made = make(folder, wanted, datetime.datetime.now(datetime.UTC), os.urandom, say)
    except ValidationError as problem:
        raise UsageError(first_error(problem)) from None
    say(f"{options.name}: {fingerprint(made.key().public)}")
    if parts := made.load().base.left_out:
        say(parts)
    if options.beginning is not None:
        say(options.beginning.note)
    privacy_note.write(made)
    say(f"settings: {made.settings}; for members: {made.root / privacy_note.NAME}, complete it")
    say(f"next: nomoat up {folder}    and    nomoat invite {folder}")


def _wanted(options: InitOptions) -> NewCommunity:
    from nomoat.server.community.certificates import canonical, split_address
    from nomoat.server.community.creation import NewCommunity, Tables
    from nomoat.server.community.membership_rules import Admission
    from nomoat.server.community.settings import (
        CommunityRoundSettings,
        CommunitySettings,
        ServerSettings,
    )
    from nomoat.server.rounds.settings import AdapterSettings, TrainingSettings

    host, port = split_address(options.address)
    admission = Admission.APPROVE if options.approve else Admission.OPEN
    adapter, rounds, training = (
        {key: value for key, value in options.settings.items() if key in kind.model_fields}
        for kind in (AdapterSettings, CommunityRoundSettings, TrainingSettings)
    )
    return NewCommunity(
        CommunitySettings(name=options.name, about=options.about, admission=admission),
        options.base or (options.beginning.place if options.beginning else ""),
        options.license,
        Tables(adapter, rounds, training),
        ServerSettings(host=_listening(host), port=port, address=canonical(options.address)),
        options.evaluation,
        options.seed,
        options.beginning,
        options.database,
    )


def _listening(public: str) -> str:
    """The address to listen on when volunteers reach `public`: every one, of IPv6 too if it is."""
    if ":" not in public:
        return "0.0.0.0"
    return public if public == "::1" else "::"
