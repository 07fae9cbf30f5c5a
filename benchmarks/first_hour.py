"""The first hour as people walk it: from nothing to the first committed round, as typed.

    python benchmarks/first_hour.py [--json] [--keep FOLDER]

One coordinator and three volunteers on this machine, a base model in a folder of each, text of
their own; every step is the command a person types, with nothing but what the step before has
printed. Real processes, TLS, masks, the pocket model.

    commands     typed by all four together; goal: at most 6
    machine_s    the time the commands and the round took
    typed_s      the same and what typing takes at 5 characters a second, an invitation pasted, the
                 volunteers each at their own machine; goal: at most 180
    missing      events of the way that a volunteer's terminal did not tell; goal: none
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nomoat.simulations.pocket import MODEL_DIR

PROGRAM = (sys.executable, "-P", "-m", "nomoat")
PEOPLE = ("ada", "ben", "cyd")
ROWS, WORDS = 120, ("sun", "moon", "tea", "book", "road", "rain", "hill", "bread", "light")
CHARACTERS_S, PASTED = 5.0, 10  # a pasted invitation costs as much as ten characters
FIRST_COMMIT_S = 300.0
WAITED_FOR = "more volunteer"
EVENTS = (
    "joined Town as",
    WAITED_FOR,
    "training on your rows",
    "left",
    "the update leaves for the sum",
    "held-out loss on your rows",
    "version 1 of the community's adapter is here",
)


@dataclass
class Walk:
    """A walk under way in `root`."""

    root: Path
    typed: list[str] = field(default_factory=list)
    volunteers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def run(self, *arguments: str) -> str:
        """Type a command and wait for its end; its stdout."""
        self.typed.append(" ".join(("nomoat", *arguments)))
        command = [*PROGRAM, *arguments]
        done = subprocess.run(command, cwd=self.root, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise SystemExit(f"nomoat {arguments[0]}: {done.stderr.strip()}")
        return done.stdout

    def join(self, name: str, link: str) -> None:
        """Have a volunteer type the command that the invitation says, with its folder and file."""
        given = ("--data", f"{name}.jsonl", "--base", "base", "--as", name)
        words = ("nomoat", "join", "x" * PASTED, *given, "--yes", "--accept-weak")
        self.typed.append(" ".join(words))
        environment = {**os.environ, "NOMOAT_HOME": str(self.root / f"home-{name}")}
        with (self.root / f"{name}.told").open("ab") as told:
            self.volunteers.append(
                subprocess.Popen(
                    [*PROGRAM, "join", link, *given, "--yes", "--accept-weak"],
                    cwd=self.root,
                    stdin=subprocess.DEVNULL,
                    stdout=told,
                    stderr=told,
                    env=environment,
                )
            )

    def until_told(self, name: str, event: str) -> None:
        """Wait until a volunteer's terminal has told an event."""
        until = time.monotonic() + FIRST_COMMIT_S
        while event not in (self.root / f"{name}.told").read_text("utf-8", "replace"):
            if time.monotonic() > until:
                raise SystemExit(f"{name} was not told: {event}")
            time.sleep(0.2)

    def look(self) -> dict[str, Any]:
        """Ask how the community does; nobody has to, so it counts as no command."""
        command = [*PROGRAM, "status", "town", "--json"]
        done = subprocess.run(command, cwd=self.root, capture_output=True, check=True)
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def end(self) -> None:
        """Let everybody go home."""
        for volunteer in self.volunteers:
            volunteer.terminate()
        subprocess.run([*PROGRAM, "down", "town"], cwd=self.root, capture_output=True, check=False)
        for volunteer in self.volunteers:
            volunteer.wait(60)


def walk(root: Path) -> dict[str, Any]:
    """Walk from nothing to the first committed round; the figures."""
    prepare(root)
    port = free_port()
    made = Walk(root)
    began = time.monotonic()
    try:
        options = ("--min-volunteers", "3", "--allow-weak", "--address", f"localhost:{port}")
        made.run("init", "town", "--name", "Town", "--base", "base", *options)
        made.run("up", "town", "--detach", "--no-web")
        link = made.run("invite", "town", "--uses", "3", "--quiet").strip()
        for name in PEOPLE:
            made.join(name, link)
            made.until_told(PEOPLE[0], WAITED_FOR)
        while made.look()["version"] < 1:
            if time.monotonic() - began > FIRST_COMMIT_S:
                raise SystemExit(f"no round within {FIRST_COMMIT_S:.0f} s: {made.look()}")
            time.sleep(1.0)
        machine_s = time.monotonic() - began
        missing = wait_for_events(root)
    finally:
        made.end()
    joins = [len(one) for one in made.typed if one.startswith("nomoat join")]
    at_keys = sum(map(len, made.typed)) - sum(joins) + max(joins)
    typing_s = at_keys / CHARACTERS_S
    return {
        "commands": len(made.typed),
        "machine_s": round(machine_s, 1),
        "typed_s": round(machine_s + typing_s, 1),
        "missing": missing,
    }


def wait_for_events(root: Path, seconds: float = 30.0) -> list[str]:
    """Name the events that some volunteer was not told, once all that come have come."""
    until = time.monotonic() + seconds
    while True:
        told = [(root / f"{name}.told").read_text("utf-8", "replace") for name in PEOPLE]
        at_all = (WAITED_FOR,)  # the last to come waits for nobody
        missing = [
            event
            for event in EVENTS
            if not (any if event in at_all else all)(event in text for text in told)
        ]
        if not missing or time.monotonic() > until:
            return missing
        time.sleep(0.5)


def prepare(root: Path) -> None:
    """Lay out what people have before: a base model's folder and rows of their own."""
    shutil.copytree(MODEL_DIR, root / "base")
    rng = random.Random(1)
    for name in PEOPLE:
        rows = [
            {"text": f"{name} writes: {' '.join(rng.choices(WORDS, k=30))}"} for _ in range(ROWS)
        ]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (root / f"{name}.jsonl").write_text(text, "utf-8")


def free_port() -> int:
    """A port nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main() -> None:
    """Walk once and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="one object on stdout")
    parser.add_argument("--keep", type=Path, help="keep everything in this new folder")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="nomoat-first-hour-") as folder:
        root = Path(folder)
        if options.keep is not None:
            options.keep.mkdir(parents=True)
            root = options.keep.resolve()
        found = walk(root)
    if options.json:
        print(json.dumps(found))
        return
    print(f"{found['commands']} commands (at most 6)")
    print(
        f"{found['machine_s']:.0f} s of the machine, {found['typed_s']:.0f} s typed (at most 180)"
    )
    print("every event was told" if not found["missing"] else f"not told: {found['missing']}")


if __name__ == "__main__":
    main()
