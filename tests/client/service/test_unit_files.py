from __future__ import annotations

import os
import plistlib
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from nomoat.aggregation.errors import NomoatError, UsageError
from nomoat.client.service import install as shell
from nomoat.client.service.unit_files import (
    TASK_NAMESPACE,
    Installation,
    Service,
    installation,
    lint,
)

HARD = [
    *("--data", 'a "b" c', "$HOME", "100%", "back\\slash", "trailing\\"),
    *("ünï", "a'b", "%h;x", 'a\\"b'),
]
SERVICE = Service(
    name="nomoat",
    description="nomoat volunteer: 100 % yours & <only>",
    command=("/usr/bin/env", "-u", "X", "/usr/bin/printf", "%s\\n", *HARD),
    folder="/tmp",
    log="/tmp/nomoat.log",
    environment={"NOMOAT_HOME": "/home/me/a b$c%d"},
)


def test_the_systemd_unit_passes_systemds_own_check(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("needs systemd-analyze")
    made = installation(SERVICE, "linux", str(tmp_path))
    unit = tmp_path / "nomoat.service"
    unit.write_bytes(made.content)
    done = subprocess.run(
        ["systemd-analyze", "--user", "verify", str(unit)],
        capture_output=True,
        text=True,
        env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path), "HOME": str(tmp_path)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "nomoat.service" not in done.stderr, done.stderr


def test_systemd_reads_back_the_command_we_meant() -> None:
    """The quoting rules of systemd.service(5), undone by hand."""
    text = installation(SERVICE, "linux", "/home/me").content.decode()
    line = next(x for x in text.splitlines() if x.startswith("ExecStart="))
    words, current, quoted, escaped = [], "", False, False
    for sign in line.removeprefix("ExecStart="):
        if escaped:
            current, escaped = current + sign, False
        elif sign == "\\":
            escaped = True
        elif sign == '"':
            if quoted:
                words.append(current)
                current = ""
            quoted = not quoted
        elif quoted:
            current += sign
        else:
            assert sign == " "
    assert '"$$HOME"' in line  # else systemd would put the variable's value there
    undone = [word.replace("$$", "$").replace("%%", "%") for word in words]
    assert undone == list(SERVICE.command)
    environment = next(x for x in text.splitlines() if x.startswith("Environment="))
    assert environment == 'Environment="NOMOAT_HOME=/home/me/a b$c%%d"'


def test_a_finished_client_is_not_started_again_but_a_crashed_one_is() -> None:
    unit = installation(SERVICE, "linux", "/home/me").content.decode()
    assert "Restart=on-failure" in unit
    agent = plistlib.loads(installation(SERVICE, "darwin", "/Users/me", 501).content)
    assert agent["KeepAlive"] == {"SuccessfulExit": False}


def test_the_launch_agent_holds_every_argument_unchanged() -> None:
    made = installation(SERVICE, "darwin", "/Users/me", 501)
    agent = plistlib.loads(made.content)
    assert tuple(agent["ProgramArguments"]) == SERVICE.command
    assert agent["EnvironmentVariables"] == SERVICE.environment
    assert made.install[0][:3] == ("launchctl", "bootstrap", "gui/501")
    assert lint(made.content, "darwin") is None


def split_windows(text: str) -> list[str]:
    """CommandLineToArgvW's rules: 2n backslashes before a quote are n, an odd one is a quote."""
    words, current, slashes, quoted, begun = [], "", 0, False, False
    for sign in text + " ":
        if sign == "\\":
            slashes += 1
            begun = True
        elif sign == '"':
            current += "\\" * (slashes // 2)
            if slashes % 2:
                current += '"'
            else:
                quoted = not quoted
            slashes, begun = 0, True
        else:
            current, slashes = current + "\\" * slashes, 0
            if sign in " \t" and not quoted:
                if begun:
                    words.append(current)
                current, begun = "", False
            else:
                current, begun = current + sign, True
    return words


def test_the_windows_task_holds_the_command_as_windows_splits_it() -> None:
    command = ("C:\\Program Files\\nomoat\\nomoat.exe", *HARD, "")
    service = replace(SERVICE, command=command, environment={})
    made = installation(service, "win32", "C:\\Users\\me")
    assert lint(made.content, "win32") is None
    task = ElementTree.fromstring(made.content)
    action = task.find(f".//{{{TASK_NAMESPACE}}}Exec")
    assert action is not None
    assert action.findtext(f"{{{TASK_NAMESPACE}}}Command") == command[0]
    arguments = action.findtext(f"{{{TASK_NAMESPACE}}}Arguments") or ""
    assert split_windows(arguments) == list(command[1:])
    assert task.findtext(f".//{{{TASK_NAMESPACE}}}RunLevel") == "LeastPrivilege"
    assert str(made.path).endswith("nomoat.xml")


@pytest.mark.parametrize("platform", ["linux", "darwin", "win32"])
@pytest.mark.parametrize(
    "change",
    [
        {"command": ("nomoat", "run")},
        {"command": ()},
        {"command": ("/usr/bin/x", "a\nExecStartPre=/bin/evil")},
        {"description": "x\n[Service]\nExecStart=/bin/evil"},
        {"folder": "/tmp\nUser=root"},
        {"environment": {"A": "b\nExecStart=/bin/evil"}},
        {"environment": {"A\n": "b"}},
        {"name": "../../etc/x"},
        {"name": "a b"},
        {"name": ""},
    ],
)
def test_nothing_can_be_smuggled_into_a_unit(platform: str, change: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        installation(replace(SERVICE, **change), platform, "/home/me")  # type: ignore[arg-type]


def test_an_unknown_platform_is_refused() -> None:
    with pytest.raises(UsageError, match="no service manager"):
        installation(SERVICE, "plan9", "/home/me")


@pytest.mark.parametrize("platform", ["linux", "darwin", "win32"])
def test_lint_finds_files_that_were_damaged(platform: str) -> None:
    command = ("C:\\n.exe",) if platform == "win32" else ("/usr/bin/n",)
    service = replace(SERVICE, command=command, environment={})
    content = installation(service, platform, "/home/me").content
    assert lint(content, platform) is None
    for broken in (b"", b"\xff\xff\xff", content[: len(content) // 4]):
        assert lint(broken, platform)


class System:
    """The system's commands, recorded; those in `failing` fail."""

    def __init__(self, *failing: str) -> None:
        self.done: list[str] = []
        self.failing = failing

    def __call__(self, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        self.done.append(" ".join(command))
        bad = any(word in command for word in self.failing)
        return subprocess.CompletedProcess(command, int(bad), "", "no bus\n" if bad else "")


def made(tmp_path: Path) -> Installation:
    return replace(installation(SERVICE, "linux", str(tmp_path)), verify=None)


def test_install_writes_and_starts_and_remove_undoes(tmp_path: Path) -> None:
    wanted, system = made(tmp_path), System()
    shell.install(wanted, "linux", system)
    assert Path(wanted.path).read_bytes() == wanted.content
    assert system.done[-1] == "systemctl --user enable --now nomoat.service"
    shell.remove(wanted, system)
    assert not Path(wanted.path).exists()
    assert shell.remove(wanted, system) == "no service is installed"


def test_a_failed_install_leaves_what_was_there(tmp_path: Path) -> None:
    wanted = made(tmp_path)
    with pytest.raises(NomoatError, match=r"enable --now nomoat\.service failed: no bus"):
        shell.install(wanted, "linux", System("enable"))
    assert not Path(wanted.path).exists()
    Path(wanted.path).write_text("mine")
    with pytest.raises(NomoatError):
        shell.install(wanted, "linux", System("enable"))
    assert Path(wanted.path).read_text() == "mine"


def test_a_missing_system_command_is_one_line(tmp_path: Path) -> None:
    def absent(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        raise FileNotFoundError(2, "No such file", command[0])

    with pytest.raises(NomoatError, match="systemctl --user daemon-reload failed"):
        shell.install(made(tmp_path), "linux", absent)
    assert "systemctl" in shell.render_manual(made(tmp_path))


def test_a_coordinator_is_kept_up_without_giving_way(tmp_path: Path) -> None:
    folder = tmp_path / "town"
    with pytest.raises(UsageError, match="no community is kept"):
        shell.coordinator(folder)
    folder.mkdir()
    (folder / "community.toml").touch()
    found = shell.coordinator(folder)
    text = found.content.decode("utf-16" if sys.platform == "win32" else "utf-8")
    assert str(folder) in text
    assert "Nice=10" not in text
    assert "OOMScoreAdjust" not in text
    assert shell.coordinator(folder).path != shell.coordinator(_other(tmp_path)).path


def _other(tmp_path: Path) -> Path:
    """The folder of another community."""
    folder = tmp_path / "city"
    folder.mkdir()
    (folder / "community.toml").touch()
    return folder
