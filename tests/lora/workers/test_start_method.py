"""No process forks once CUDA has been started in it (see test_on_a_gpu), or starts it early."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import nomoat.lora
from nomoat.lora.data.conversations import Conversation
from nomoat.lora.data.normal_form import write_jsonl
from tests.fake_gpu.machine import FakeGpu

pytestmark = pytest.mark.timeout(400)

PROGRAM = """
import sys
from pathlib import Path
from nomoat.aggregation.protocol.messages import TrainSettings
from nomoat.lora.workers.jobs import EvaluateJob, SpecJob
from nomoat.lora.workers.pool import Pool

if __name__ == "__main__":
    with Pool(sys.argv[1], 2) as pool:
        found = [pool.submit(SpecJob(4, 8.0)) for _ in range(4)]
        specs = [future.result().spec for future in found]
        print([spec.rank for spec in specs], pool._state.on_gpu)
        job = EvaluateJob(Path(sys.argv[2]), specs[0], None, TrainSettings(seq_len=64))
        print(pool.submit(job).result())
    print({"torch", "transformers", "peft"} & sys.modules.keys())
"""


@pytest.fixture(scope="module")
def ran(
    tmp_path_factory: pytest.TempPathFactory,
    model_folder: Path,
    conversations: tuple[Conversation, ...],
) -> tuple[FakeGpu, list[str], str]:
    """What a program with a pool of two said (its lines, its errors), and its machine."""
    here = tmp_path_factory.mktemp("program")
    (here / "program.py").write_text(PROGRAM)
    write_jsonl(list(conversations[:10]), here / "rows.jsonl")
    gpu = FakeGpu(here / "gpu", missing=True)
    done = gpu.run(str(here / "program.py"), str(model_folder), str(here / "rows.jsonl"))
    assert done.returncode == 0, done.stderr
    return gpu, done.stdout.splitlines(), done.stderr


def test_nothing_starts_a_gpu_in_the_server_that_workers_are_forked_from(
    ran: tuple[FakeGpu, list[str], str],
) -> None:
    gpu, (ranks, *_), _ = ran
    assert ranks == "[4, 4, 4, 4] False"
    assert (gpu.starts(), gpu.forks()) == (set(), [])


def test_the_process_that_submits_never_imports_torch(
    ran: tuple[FakeGpu, list[str], str],
) -> None:
    _, (_, measured, imported), errors = ran
    assert measured.startswith("MeasuredLoss(loss=")
    assert imported == "set()"
    assert errors == ""


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
