"""No process forks once CUDA has been started in it (see test_on_a_gpu), or starts it early."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import nomoat.lora
from tests.fake_gpu.machine import FakeGpu

pytestmark = pytest.mark.timeout(400)

PROGRAM = """
import sys
from nomoat.lora.workers.jobs import SpecJob
from nomoat.lora.workers.pool import Pool

if __name__ == "__main__":
    with Pool(sys.argv[1], 2) as pool:
        for future in [pool.submit(SpecJob(4, 8.0)) for _ in range(4)]:
            print(future.result().spec.rank, pool._state.on_gpu)
"""


def test_nothing_starts_a_gpu_in_the_server_that_workers_are_forked_from(
    tmp_path: Path, model_folder: Path
) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    gpu = FakeGpu(tmp_path / "gpu", missing=True)
    done = gpu.run(str(tmp_path / "program.py"), str(model_folder))
    assert done.stdout.split("\n")[:4] == ["4 False"] * 4, done.stderr
    assert (gpu.starts(), gpu.forks()) == (set(), [])


def test_one_file_alone_makes_processes_that_are_not_new_programs() -> None:
    """So what holds of the pool holds of simulations, communities, evaluation and previews."""
    rooms = Path(nomoat.lora.__file__).parent.parent
    makes = {"multiprocessing", "concurrent.futures.process", "os.fork"}
    found = set()
    for room in ("aggregation", "client", "flower", "lora", "server", "simulations", "storage"):
        for file in (rooms / room).rglob("*.py"):
            names = _imported(ast.parse(file.read_text()))
            if names & makes:
                found.add(file.relative_to(rooms).as_posix())
    assert found == {"lora/workers/process.py", "lora/workers/worker.py"}  # its parent_process


def _imported(tree: ast.Module) -> set[str]:
    """Modules imported outside `if TYPE_CHECKING`, and uses of os.fork and ProcessPoolExecutor."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            node.body = []
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            names = {alias.name for alias in node.names}
            found |= {node.module} if names != {"Connection"} else set()
            if "ProcessPoolExecutor" in names:
                found.add("concurrent.futures.process")
        elif (isinstance(node, ast.Attribute) and node.attr in {"fork", "forkpty"}) or (
            isinstance(node, ast.keyword) and node.arg == "preexec_fn"
        ):
            found.add("os.fork")
    return found
