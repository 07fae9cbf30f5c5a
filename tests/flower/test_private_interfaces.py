"""What flwr does not promise to keep is used where an upgrade looks for it, and nowhere else."""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROOMS = (
    "aggregation",
    "client",
    "flower",
    "front_door",
    "lora",
    "server",
    "simulations",
    "storage",
)


def test_the_private_id_of_a_message_is_written_in_one_place() -> None:
    found = {
        str(path.relative_to(ROOT))
        for room in ROOMS
        for path in (ROOT / room).rglob("*.py")
        if '"_message_id"' in path.read_text()
    }
    assert found == {"flower/objects.py"}


def test_private_modules_are_allowed_to_flower_and_one_file_a_side() -> None:
    lint = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["ruff"]["lint"]
    allowed = {files for files, rules in lint["per-file-ignores"].items() if "TID251" in rules}
    assert {files for files in allowed if files.split("/")[0] in ROOMS} == {
        "flower/**",
        "server/fleet/flower_server.py",
        "client/connection/flower_client.py",
    }
    import flwr

    public = {"flwr.app", "flwr.clientapp", "flwr.serverapp"}
    folder = Path(next(iter(flwr.__path__)))
    packages = {f"flwr.{path.parent.name}" for path in folder.glob("*/__init__.py")}
    assert packages - public <= set(lint["flake8-tidy-imports"]["banned-api"])
