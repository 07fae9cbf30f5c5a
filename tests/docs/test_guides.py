"""Every command in the guides, on the pages and in the deployment files is one that there is."""

from __future__ import annotations

import contextlib
import re
import shlex
import tomllib
from pathlib import Path

import click
import pytest
import typer
import yaml

from nomoat.cli import app

ROOT = Path(__file__).parents[2]
GUIDES = sorted((ROOT / "docs" / "guides").glob("*.md"))
PAGES = sorted((ROOT / "desk" / "pages").glob("*.j2"))
COMPOSE = ROOT / "deploy" / "containers" / "compose.yaml"
IMAGE = ROOT / "deploy" / "containers" / "Containerfile"
KUBERNETES = ROOT / "deploy" / "kubernetes.yaml"


def parse(line: str) -> None:
    """Parse a command as the command line does, and run nothing; click's error if it cannot be."""
    words = shlex.split(line)
    assert words[0] == "nomoat"
    command, rest = typer.main.get_command(app), words[1:]
    context: click.Context | None = None
    while isinstance(command, click.Group):
        context = command.make_context(command.name, rest, parent=context)
        rest = [*context._protected_args, *context.args]
        if not rest:
            return
        _, found, rest = command.resolve_command(context, rest)
        assert found is not None
        command = found
    command.make_context(command.name, rest, parent=context)


def of_guide(path: Path) -> list[str]:
    blocks = re.findall(r"^```sh\n(.*?)^```$", path.read_text("utf-8"), re.M | re.S)
    return [line for block in blocks for line in block.splitlines() if line.strip()]


@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: str(path.stem))
def test_every_command_of_a_guide_is_one_that_there_is(guide: Path) -> None:
    lines = of_guide(guide)
    assert len(lines) > 5
    for line in lines:
        parse(line)


def test_a_command_that_is_wrong_is_found() -> None:
    for line in (
        "nomoat fly",
        "nomoat pause --until x",
        "nomoat invite a b",
        "nomoat volunteers d fly",
    ):
        with pytest.raises(click.ClickException):
            parse(line)


def test_every_command_that_a_page_names_is_one_that_there_is() -> None:
    found = [
        line
        for page in PAGES
        for line in re.findall(r"<code[^>]*>(nomoat [a-z][^<]*)</code>", page.read_text("utf-8"))
    ]
    assert len(found) > 6
    for line in found:
        with contextlib.suppress(click.MissingParameter):  # spoken of, not told to be typed
            parse(re.sub(r"\{\{.*?\}\}", "1", line))


def commands_of_compose() -> list[str]:
    services = yaml.safe_load(COMPOSE.read_text("utf-8"))["services"]
    return commands_in("\n".join(line for each in services.values() for line in each["command"]))


def commands_in(text: str) -> list[str]:
    """The commands of a shell's lines, and those that comments name."""
    text = text.replace("\\\n", " ").replace("$$", "$")
    return re.findall(r"\bnomoat (?:init|up|invite|join|run|page)\b[^\n>]*", text)


def test_the_composed_community_is_started_with_commands_that_there_are() -> None:
    lines = commands_of_compose()
    assert {line.split()[1] for line in lines} == {"init", "up", "invite", "join", "run"}
    for line in lines:
        parse(line)


def test_every_container_is_without_rights_and_has_a_root_that_cannot_be_written() -> None:
    services = yaml.safe_load(COMPOSE.read_text("utf-8"))["services"]
    for name, service in services.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert "no-new-privileges" in service["security_opt"], name
    for name in ("coordinator", "volunteer1", "volunteer2"):
        assert "healthcheck" in services[name]
    last = IMAGE.read_text("utf-8").split("\nFROM ")[-1]
    assert re.search(r"^USER (?!0|root)", last, re.M)
    published = services["coordinator"]["ports"]
    assert [port for port in published if not str(port).startswith("127.0.0.1:")] == ["8443:8443"]


def test_a_pod_is_one_without_rights_and_runs_commands_that_there_are() -> None:
    text = KUBERNETES.read_text("utf-8")
    (pod,) = (each["spec"] for each in yaml.safe_load_all(text) if each["kind"] == "StatefulSet")
    spec = pod["template"]["spec"]
    (container,) = spec["containers"]
    lines = [*commands_in(container["args"][0]), *commands_in(text.partition("apiVersion")[0])]
    assert {line.split()[1] for line in lines} == {"init", "up", "invite", "page"}
    for line in lines:
        parse(line)
    assert pod["replicas"] == 1
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert f"USER {spec['securityContext']['runAsUser']}\n" in IMAGE.read_text("utf-8")
    # A volume's files are given to the group, keys among them, wherever this is not said.
    assert spec["securityContext"]["fsGroupChangePolicy"] == "OnRootMismatch"
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


def test_an_image_is_made_of_the_rooms_and_of_nothing_else_that_lies_in_a_clone() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    rooms = set(project["tool"]["setuptools"]["package-dir"].values())
    lines = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    assert lines[1] == "*"
    taken = {line[1:] for line in lines if line.startswith("!")}
    assert taken == rooms | {"pyproject.toml", "constraints.txt", "README.md", "LICENSE"}
