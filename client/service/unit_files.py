"""Unit files that start the client with the session: generated as text, checked before use. Pure.

systemd: a user unit (systemd.service(5), systemd.exec(5)). macOS: a launch agent
(launchd.plist(5)). Windows: a scheduled task (Task Scheduler schema 1.2). None needs root, none
runs while its owner is not logged in, and each restarts the client when it dies, but not when it
ends well: `nomoat finish` must stay finished.
"""

from __future__ import annotations

import plistlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePath, PurePosixPath, PureWindowsPath
from typing import Final
from xml.etree import ElementTree
from xml.parsers.expat import ExpatError

from nomoat.aggregation.errors import UsageError

RESTART_S: Final = 30
STOP_S: Final = 20  # a micro-step, its checkpoint and the goodbye
TASK_NAMESPACE: Final = "http://schemas.microsoft.com/windows/2004/02/mit/task"


@dataclass(frozen=True, slots=True)
class Service:
    """A program to run. `command`: absolute path first. `log`: where launchd writes output.

    courteous: gives way to everything else on the machine, as a coordinator does not.
    """

    name: str
    description: str
    command: tuple[str, ...]
    folder: str
    log: str
    environment: Mapping[str, str] = field(default_factory=dict)
    courteous: bool = True


@dataclass(frozen=True, slots=True)
class Installation:
    """A file to write and the commands that make the system take it up, or let it go."""

    path: PurePath
    content: bytes
    install: tuple[tuple[str, ...], ...]
    remove: tuple[tuple[str, ...], ...]
    verify: tuple[str, ...] | None = None


def installation(service: Service, platform: str, home: str, user_id: int = 0) -> Installation:
    """The installation of `service` on `platform` (sys.platform) for the user of this home."""
    _check(service, platform)
    if platform.startswith("linux"):
        return _systemd(service, PurePosixPath(home))
    if platform == "darwin":
        return _launchd(service, PurePosixPath(home), user_id)
    if platform == "win32":
        return _windows(service, PureWindowsPath(home))
    raise UsageError(f"no service manager is known for {platform}; start nomoat run yourself")


def _check(service: Service, platform: str) -> None:
    kind = PureWindowsPath if platform == "win32" else PurePosixPath
    if not service.command or not kind(service.command[0]).is_absolute():
        raise UsageError("a service needs the absolute path of its program")
    texts = (service.name, service.description, service.folder, service.log, *service.command)
    for text in (*texts, *service.environment, *service.environment.values()):
        if any(ord(sign) < 32 or ord(sign) == 127 for sign in text):  # a line break adds a setting
            raise UsageError(f"{text!r} has a control character and cannot be put into a service")
    if not service.name.replace("-", "").replace(".", "").isalnum():
        raise UsageError(f"{service.name!r} is no name for a service; use letters, digits, - and .")


def _systemd(service: Service, home: PurePosixPath) -> Installation:
    unit = f"{service.name}.service"
    path = home / ".config/systemd/user" / unit
    lines = [
        "[Unit]",
        f"Description={_specifiers(service.description)}",
        "After=network-online.target graphical-session.target",
        "StartLimitIntervalSec=600",
        "StartLimitBurst=5",
        "",
        "[Service]",
        "Type=exec",
        f"ExecStart={' '.join(_systemd_word(x).replace('$', '$$') for x in service.command)}",
        f"WorkingDirectory={_specifiers(service.folder)}",
        *(f"Environment={_systemd_word(f'{k}={v}')}" for k, v in service.environment.items()),
        "Restart=on-failure",
        f"RestartSec={RESTART_S}",
        "RestartPreventExitStatus=2 3 5 6 7 8",  # asking again does not change these answers
        "KillSignal=SIGINT",
        f"TimeoutStopSec={STOP_S}",
        *(("Nice=10", "IOSchedulingClass=idle") if service.courteous else ()),
        "NoNewPrivileges=yes",
        "UMask=0077",
        "OOMPolicy=continue",
        *(("OOMScoreAdjust=500",) if service.courteous else ()),
        "",
        "[Install]",
        "WantedBy=default.target",
        "",
    ]
    control = ("systemctl", "--user")
    return Installation(
        path,
        "\n".join(lines).encode(),
        ((*control, "daemon-reload"), (*control, "enable", "--now", unit)),
        ((*control, "disable", "--now", unit), (*control, "daemon-reload")),
        ("systemd-analyze", "--user", "verify", str(path)),
    )


def _specifiers(text: str) -> str:
    """% begins a specifier in every systemd setting."""
    return text.replace("%", "%%")


def _systemd_word(word: str) -> str:
    r"""One quoted word: \ and " take a backslash, % is doubled; ExecStart also doubles $."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{_specifiers(escaped)}"'


def _launchd(service: Service, home: PurePosixPath, user_id: int) -> Installation:
    label = f"org.{service.name}"
    path = home / "Library/LaunchAgents" / f"{label}.plist"
    content = plistlib.dumps(
        {
            "Label": label,
            "ProgramArguments": list(service.command),
            "WorkingDirectory": service.folder,
            "EnvironmentVariables": dict(service.environment),
            "RunAtLoad": True,
            "KeepAlive": {"SuccessfulExit": False},
            "ThrottleInterval": RESTART_S,
            "ExitTimeOut": STOP_S,
            "ProcessType": "Background" if service.courteous else "Standard",
            "LowPriorityIO": service.courteous,
            "Nice": 10 if service.courteous else 0,
            "Umask": 0o077,
            "StandardOutPath": service.log,
            "StandardErrorPath": service.log,
        }
    )
    domain = f"gui/{user_id}"
    return Installation(
        path,
        content,
        (("launchctl", "bootstrap", domain, str(path)),),
        (("launchctl", "bootout", f"{domain}/{label}"),),
        ("plutil", "-lint", str(path)),
    )


def _windows(service: Service, home: PureWindowsPath) -> Installation:
    path = home / "AppData/Local/nomoat" / f"{service.name}.xml"
    program, *arguments = service.command
    if service.environment:  # tasks have no environment of their own
        sets = " && ".join(f'set "{k}={v}"' for k, v in service.environment.items())
        whole = " ".join(_windows_word(word) for word in service.command)
        program, arguments_text = "cmd.exe", f'/d /c "{sets} && {whole}"'
    else:
        arguments_text = " ".join(_windows_word(word) for word in arguments)
    return Installation(
        path,
        _task(service, program, arguments_text),
        (("schtasks", "/create", "/tn", service.name, "/xml", str(path), "/f"),),
        (
            ("schtasks", "/end", "/tn", service.name),
            ("schtasks", "/delete", "/tn", service.name, "/f"),
        ),
    )


def _windows_word(word: str) -> str:
    """One argument, quoted as CommandLineToArgvW splits it again."""
    if word and not any(sign in word for sign in ' \t"'):
        return word
    quoted, slashes = "", 0
    for sign in word:
        if sign == "\\":
            slashes += 1
            continue
        quoted += "\\" * (slashes * 2 + 1 if sign == '"' else slashes) + sign
        slashes = 0
    return f'"{quoted}{chr(92) * (slashes * 2)}"'


def _task(service: Service, program: str, arguments: str) -> bytes:
    """The task as UTF-16 XML, elements in the schema's order."""
    task = ElementTree.Element("Task", {"version": "1.2", "xmlns": TASK_NAMESPACE})
    _add(task, "RegistrationInfo", {"Description": service.description})
    triggers = ElementTree.SubElement(task, "Triggers")
    _add(triggers, "LogonTrigger", {"Enabled": "true"})
    principals = ElementTree.SubElement(task, "Principals")
    principal = {"LogonType": "InteractiveToken", "RunLevel": "LeastPrivilege"}
    _add(principals, "Principal", principal).set("id", "Author")
    settings = {
        "MultipleInstancesPolicy": "IgnoreNew",
        "DisallowStartIfOnBatteries": "false",  # the client decides, and says why it waits
        "StopIfGoingOnBatteries": "false",
        "StartWhenAvailable": "true",
        "RunOnlyIfNetworkAvailable": "false",
        "ExecutionTimeLimit": "PT0S",
        "Priority": "7",
    }
    restart = _add(task, "Settings", settings)
    _add(restart, "RestartOnFailure", {"Interval": "PT1M", "Count": "5"})
    actions = ElementTree.SubElement(task, "Actions", {"Context": "Author"})
    fields = {"Command": program, "Arguments": arguments, "WorkingDirectory": service.folder}
    _add(actions, "Exec", {name: value for name, value in fields.items() if value})
    ElementTree.indent(task)
    written: bytes = ElementTree.tostring(task, encoding="utf-16", xml_declaration=True)
    return written


def _add(parent: ElementTree.Element, name: str, values: Mapping[str, str]) -> ElementTree.Element:
    element = ElementTree.SubElement(parent, name)
    for key, value in values.items():
        ElementTree.SubElement(element, key).text = value
    return element


def lint(content: bytes, platform: str) -> str | None:
    """Say what is wrong with a generated or edited file in form; None if nothing is."""
    try:
        if platform == "darwin":
            values = plistlib.loads(content)
            named = isinstance(values, dict) and values.get("ProgramArguments")
            return None if named else "it names no program"
        if platform == "win32":
            task = ElementTree.fromstring(content)  # noqa: S314 - our own file
            found = task.find(f".//{{{TASK_NAMESPACE}}}Exec/{{{TASK_NAMESPACE}}}Command")
            return None if found is not None and found.text else "it names no program"
        text = content.decode("utf-8")
        return None if "\nExecStart=" in text else "it names no program"
    except (
        ExpatError,
        plistlib.InvalidFileException,
        ElementTree.ParseError,
        ValueError,
    ) as problem:
        return f"it cannot be read: {problem}"
