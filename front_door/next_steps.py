"""Next steps from where this machine stands: the ten lines that `nomoat` alone says."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nomoat.aggregation.errors import NomoatError
from nomoat.aggregation.plain_text import one_line
from nomoat.client.home import CommunityFolder, Home

SHOWN = 2  # communities, folders


def next_steps(home: Home, here: Path) -> str:
    """Return at most ten lines: what there is, and the commands that go on from it."""
    joined, hosted = home.joined(), _hosted(here)
    lines = [_title(joined, hosted)]
    if joined:
        lines += [_member(folder) for folder in joined[:SHOWN]]
        lines += ["  nomoat status --web      a page of this machine; nomoat pause --for 2h"]
        lines += ["  nomoat chat              talk to what you have trained; nomoat serve"]
    for folder in hosted[:SHOWN]:
        lines += [_keeper(here, folder)]
    if not joined and not hosted:
        lines += [
            "  nomoat try               a whole community on this machine, gone afterwards",
            "  nomoat simulate          a federation simulated, with a report; fetches nothing",
            "  nomoat join LINK --data FILE    take part in a community you were invited to",
            "  nomoat init DIR --name NAME --base MODEL    begin a community of your own",
        ]
    if runs := _runs(here):
        lines += [f"  nomoat compare {runs}/*    the runs in {runs}, side by side"]
    lines += ["  nomoat doctor            what is wrong, and the one command that mends it"]
    lines += ["nomoat --help has every command, COMMAND --help its options"]
    return "\n".join(lines)


def _title(joined: Sequence[CommunityFolder], hosted: Sequence[Path]) -> str:
    if joined and hosted:
        return "You take part in a community, and keep one here:"
    if joined:
        return "You take part:"
    if hosted:
        return "There is a community here:"
    return "Fine-tune one LoRA adapter together, each with their own data. Begin with one of:"


def _member(folder: CommunityFolder) -> str:
    from nomoat.client.volunteer.status import running

    try:
        name = one_line(folder.name())
    except NomoatError as problem:
        return f"  {folder.root}: {problem}"
    if running(folder):
        return f"  {name}: running"
    return f"  {name}: not running; nomoat run starts it"


def _keeper(here: Path, folder: Path) -> str:
    from nomoat.server.overview import up_process

    if up_process(here / folder) is not None:
        shown = f"nomoat status {folder}; nomoat page link {folder}; nomoat down {folder}"
        return f"  {folder} is up: {shown}"
    return f"  nomoat up {folder}    its port, rounds and page; nomoat invite {folder}"


def _hosted(here: Path) -> list[Path]:
    """Folders of communities: this one, or those directly below."""
    if (here / "community.toml").is_file():
        return [Path()]
    try:
        found = sorted(path.parent for path in here.glob("*/community.toml"))
    except OSError:
        return []
    return [path.relative_to(here) for path in found]


def _runs(here: Path) -> str | None:
    """The folder that simulations write to, if there are two to compare."""
    try:
        found = [path for path in (here / "runs").iterdir() if (path / "config.toml").exists()]
    except OSError:
        return None
    return "runs" if len(found) > 1 else None
