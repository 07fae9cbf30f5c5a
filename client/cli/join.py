"""`nomoat join`, `nomoat leave`, `nomoat accept-restore` and `nomoat agree`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from nomoat.client.cli import options
from nomoat.client.cli.output import busy, say, wrapped

if TYPE_CHECKING:
    from nomoat.aggregation.protocol.enrolment import CommunityInfo
    from nomoat.aggregation.protocol.invitation import Invitation
    from nomoat.client.volunteer.joining import Candidate, Consent, Wish

app = typer.Typer(add_completion=False)

_BITS: dict[str, Literal[4, 8, 16] | None] = {"auto": None, "4": 4, "8": 8, "16": 16}


@app.command()
def join(  # noqa: PLR0913, PLR0917 - a command's options are its parameters
    link: options.Link,
    data: options.Data,
    base: options.Base = None,
    name: options.Name = None,
    device: options.Device = "auto",
    heldout: options.Heldout = 0.1,
    heldout_data: options.HeldoutData = None,
    rank: options.Rank = None,
    bits: options.BaseBits = "auto",
    known_peers: options.KnownPeers = 0,
    min_participants: options.MinParticipants = 0,
    allow_dropping: options.AllowDropping = False,
    agree_up_to: options.AgreeUpTo = 20,  # ROOM_PERCENT of agreement.py
    yes: options.Yes = False,
    accept_weak: options.AcceptWeak = False,
    accept_audit: options.AcceptAudit = False,
    only_enrol: options.EnrolOnly = False,
    detach: options.Detach = False,
    no_web: options.NoWeb = False,
) -> None:
    """Join a community: read the sheet, accept it, and train whenever a round asks."""
    from nomoat.client.volunteer.joining import Consent, Wish

    wish = Wish(
        data=data,
        base=base,
        name=name or _own_name(),
        device=device,
        heldout=heldout,
        heldout_data=heldout_data,
        rank=_rank(rank),
        bits=_BITS[bits],
        known_peers=known_peers,
        allow_dropping=allow_dropping,
        min_participants=min_participants,
        room_percent=agree_up_to,
    )
    given = Consent(accept_weak, accept_audit)
    _join(_invitation(link), wish, yes, given, None if only_enrol else detach, not no_web)


def _join(
    invitation: Invitation, wish: Wish, yes: bool, given: Consent, detach: bool | None, web: bool
) -> None:
    """Join, and take part unless `detach` is None. given: accepted by options."""
    from nomoat.aggregation.errors import UsageError
    from nomoat.aggregation.plain_text import one_line
    from nomoat.client.cli.run import start
    from nomoat.client.data.split import forget
    from nomoat.client.home import Home
    from nomoat.client.volunteer.joining import consider, enrol
    from nomoat.client.volunteer.status import running

    home = Home.opened()
    known = home.folder(invitation.claims.community)
    if detach is not None and running(known):
        raise UsageError(
            f"{known.name()}: joined, and running on this machine already; see: nomoat status"
        )
    with busy("asking the coordinator, checking the base model and your data") as stop:
        candidate = consider(home, invitation, wish, _ask_base(yes, stop))
    try:
        name = enrol(home, candidate, invitation, _agree(candidate, yes, given))
        say(f"joined {one_line(candidate.info.name)} as {name}")
        if detach is not None:
            start(home, [candidate.folder], candidate.folder.root.name, detach, web)
    finally:
        if not running(candidate.folder):
            forget(candidate.folder.split)


def _invitation(link: str) -> Invitation:
    """The invitation in a link; `-` for one on stdin, where no list of processes shows it."""
    from nomoat.aggregation.protocol.invitation import from_link
    from nomoat.client.identity.own_arguments import hide

    if link != "-":
        hide(link)
        return from_link(link)
    if sys.stdin.isatty():
        return from_link(str(typer.prompt("Invitation", err=True, hide_input=True)).strip())
    return from_link(sys.stdin.readline().strip())


def _ask_base(yes: bool, stop: Callable[[], None]) -> Callable[[CommunityInfo], str]:
    """Ask on the terminal where the base model is; UsageError where nobody can answer.

    stop: ends what is shown meanwhile.
    """

    def ask(info: CommunityInfo) -> str:
        from nomoat.client.membership.base_model import asked_for, fetchable

        if yes or not sys.stdin.isatty():
            raise asked_for(info)
        stop()
        say(str(asked_for(info)))
        default = info.base_model if fetchable(info) else None
        return str(typer.prompt("Base model: a folder, or an id", default=default, err=True))

    return ask


def _agree(candidate: Candidate, yes: bool, given: Consent) -> Consent:
    """Show the sheet and, unless that was waived, ask; Refused if it is not accepted.

    Returns what was accepted by its own name: `yes` is no answer to what is weak, nor to audits.
    """
    from nomoat.aggregation.errors import Refused
    from nomoat.client.membership.joining import check_rows, preview

    say(wrapped(candidate.sheet()))
    sys.stderr.write(candidate.left_out())
    if yes:
        if not candidate.allow_dropping:
            check_rows(candidate.settings, candidate.split, candidate.info.seq_len)
        return _by_name(candidate, yes, given)
    sys.stderr.write(preview(candidate.settings, candidate.info.seq_len))
    if not typer.confirm("Take part?", default=False, err=True):
        raise Refused("not joined: the sheet was not accepted")
    return _by_name(candidate, yes, given)


def _by_name(candidate: Candidate, yes: bool, given: Consent) -> Consent:
    from nomoat.client.volunteer.joining import Consent

    weak = _agree_to_weak(candidate, yes, given.weak)
    return Consent(weak, _agree_to_audit(candidate, yes, given.audit))


def _agree_to_audit(candidate: Candidate, yes: bool, accept_audit: bool) -> bool:
    """Return True if audits were accepted, False if there are none; Refused if they were not."""
    from nomoat.aggregation.errors import Refused

    if accept_audit or not candidate.agreed.audit_words:
        return accept_audit
    refused = "not joined: this community audits the sizes of updates"
    if yes:
        raise Refused(f"{refused}; --accept-audit accepts that, too")
    question = f"Accept that the coordinator learns {candidate.agreed.audit_words} numbers of each?"
    if not typer.confirm(question, default=False, err=True):
        raise Refused(f"{refused}, which was not accepted")
    return True


def _agree_to_weak(candidate: Candidate, yes: bool, accept_weak: bool) -> bool:
    """Return True if what is weak was accepted, False if nothing is; Refused if it was not."""
    from nomoat.aggregation.errors import Refused
    from nomoat.client.membership.consent_sheet import protection, weakness

    why = weakness(candidate.info)
    if why is None:
        return False
    if accept_weak:
        return True
    if yes:
        raise Refused(f"not joined: {protection(candidate.info)}; --accept-weak accepts that, too")
    say(protection(candidate.info))
    if not typer.confirm(f"Accept that {why}?", default=False, err=True):
        raise Refused("not joined: weak protection was not accepted")
    return True


@app.command()
def leave(
    community: options.Which = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    erase: Annotated[
        bool, typer.Option("--erase", help="Have the coordinator erase what it holds of you, too.")
    ] = False,
) -> None:
    """Leave a community: its coordinator is told, and everything of it here is deleted."""
    import shutil

    from nomoat.aggregation.errors import NomoatError, UsageError
    from nomoat.client.home import Home
    from nomoat.client.membership.joining import tell_that_we_leave
    from nomoat.client.volunteer.status import running

    home = Home.opened()
    folder = home.choose(community)
    name = folder.name()
    if running(folder):
        raise UsageError(f"{name} is running here; nomoat finish first")
    if not yes and not typer.confirm(f"Leave {name}?", default=False, err=True):
        raise NomoatError("still a member: nothing was changed")
    try:
        tell_that_we_leave(home, folder, erase)
    except NomoatError as problem:
        if erase:  # without what is here nobody could ask again
            raise NomoatError(f"still a member, and nothing is erased: {problem}") from None
        say(f"{problem}; left here all the same")
    shutil.rmtree(folder.root)
    typer.echo(f"left {name}")
    if erase:
        say(
            "receipts and your name in the records of rounds are erased there; your entries in the "
            "signed roster, and your name among versions' contributors, stay: members hold them"
        )


@app.command("accept-restore")
def accept_restore(
    community: options.Which = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Go on with a community whose coordinator had to put a backup back."""
    from nomoat.aggregation.errors import NomoatError
    from nomoat.client.home import Home
    from nomoat.client.membership import restored
    from nomoat.client.volunteer.kit import Kit

    home = Home.find()
    folder = home.choose(community)
    kit = Kit.of(home, folder, folder.load())
    found = restored.waiting(folder, kit.coordinator)
    if found is None:
        say(f"{folder.name()} says nothing that would have to be accepted")
        return
    say(restored.question(folder, found))
    if not yes and not typer.confirm("Accept it?", default=False, err=True):
        raise NomoatError("not accepted: nothing was changed, and nothing is trained here")
    restored.accept(folder, found)
    typer.echo(f"goes on with {folder.name()} from version {found.version.version.number}")


@app.command()
def agree(
    community: options.Which = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    accept_weak: options.AcceptWeak = False,
) -> None:
    """Agree to the terms a community asks for now, where they go beyond those of before."""
    from nomoat.aggregation.errors import NomoatError, Refused
    from nomoat.client.home import Home
    from nomoat.client.membership import agreement
    from nomoat.client.membership.terms import renewal
    from nomoat.client.volunteer.agreed_memory import in_words, with_memory
    from nomoat.client.volunteer.kit import Kit

    home = Home.find()
    folder = home.choose(community)
    kit = Kit.of(home, folder, folder.load())
    asked = renewal.asked_now(folder, kit.coordinator, kit.settings.min_participants)
    if asked is None or not asked.found:
        say(f"{folder.name()} asks for nothing that was not agreed to")
        return
    before = agreement.load(folder.root, folder.info())
    new = with_memory(renewal.renewed(folder, asked), folder.info(), kit.settings)
    say(f"{folder.name()}, {asked.line()}{in_words(new, before)}")
    if not yes and not typer.confirm("Agree to that?", default=False, err=True):
        raise NomoatError("not agreed to: nothing was changed, and nothing is trained here")
    if asked.weakens and not accept_weak:
        question = "Your updates are protected less than before. Accept that, too?"
        if yes or not typer.confirm(question, default=False, err=True):
            raise Refused("not agreed to: it protects less; --accept-weak accepts that, too")
    renewal.agree(folder, kit.coordinator, asked, new)
    typer.echo(f"agreed to edition {asked.edition.number} of the terms of {folder.name()}")


def _rank(text: str | None) -> int | Literal["auto"]:
    from nomoat.aggregation.errors import UsageError
    from nomoat.aggregation.protocol.messages import MAX_RANK

    if text is None:
        return MAX_RANK
    if text == "auto":
        return "auto"
    if not text.isdecimal() or not 1 <= int(text) <= MAX_RANK:
        raise UsageError(f"--rank {text}: give a number from 1 to {MAX_RANK}, or auto")
    return int(text)


def _own_name() -> str:
    """This account's name, as far as it may be one here."""
    import getpass
    import re

    found = re.sub(r"[^a-z0-9._-]+", "-", getpass.getuser().lower()).strip("._-")
    return found[:40] or "volunteer"
