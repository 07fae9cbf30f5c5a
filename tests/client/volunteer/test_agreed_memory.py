"""Memory that was agreed to: said on the sheet, kept, and held against each round."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

import builders
from builders import community_info
from nomoat.aggregation.protocol.adapter import Adapter, AdapterSpec, LayerSpec
from nomoat.aggregation.protocol.enrolment import CommunityInfo
from nomoat.aggregation.protocol.messages import Decline, Ready, TrainSettings
from nomoat.aggregation.secagg.diary import Mark
from nomoat.client.data.split import Split
from nomoat.client.home import CommunityFolder
from nomoat.client.machine.limits_settings import MachineSettings
from nomoat.client.membership import agreement
from nomoat.client.membership.agreement import Agreement
from nomoat.client.membership.consent_sheet import sheet
from nomoat.client.round.app import RequestHandler
from nomoat.client.round.session import RoundSession
from nomoat.client.round.task_limits import TaskLimits
from nomoat.client.round.work import EvaluateWork, HeldUpdate, TrainWork
from nomoat.client.settings import VolunteerSettings
from nomoat.client.training.memory_fit import fitted
from nomoat.client.volunteer.agreed_memory import in_words, memory_of, with_memory
from nomoat.client.volunteer.status_writer import StatusWriter
from nomoat.lora.model.files import config
from nomoat.lora.model.shape import ALL_LINEAR, ModelShape
from nomoat.lora.training.train import Trained
from nomoat.lora.workers.jobs import TrainJob

BASE = b"b" * 32
RANK = 4
SPEC = AdapterSpec((LayerSpec("a", 4, 3, RANK),), RANK, 4.0, target_modules=(ALL_LINEAR,))
START = Adapter(SPEC, np.zeros(SPEC.size, np.float32))
SETTINGS = TrainSettings(local_steps=2, batch_size=8, seq_len=64)


def info(model: Path) -> CommunityInfo:
    values = ModelShape.from_config(config(model)).adapter_parameters(RANK, (ALL_LINEAR,))
    return community_info(adapter_values=values, local_steps=2, batch_size=8, seq_len=64)


def settings(model: Path) -> VolunteerSettings:
    return VolunteerSettings(
        address="x:1", name="ada", data=Path("d"), base=str(model), device="cpu"
    )


@pytest.fixture
def agreed(tiny_model: Path) -> Agreement:
    community = info(tiny_model)
    return with_memory(Agreement.of(community, None), community, settings(tiny_model), RANK)


@dataclass
class FittingTrainer:
    """Fits each task as a volunteer does before it trains; nothing is trained. Its store, too."""

    base: str
    folder: CommunityFolder
    took: list[TrainJob] = field(default_factory=list)

    def train(self, work: TrainWork) -> Trained:
        job = TrainJob(Path("rows"), SPEC, START.vector, work.task.settings, work.seed)
        bound = memory_of(self.folder)
        self.took.append(fitted(job, self.base, "cpu", MachineSettings(), bound=bound))
        return Trained(START.vector, 2, 500, 4.0, 3.0, 0.5)

    def evaluate(self, work: EvaluateWork) -> tuple[float, int, float | None]:
        raise NotImplementedError

    def save(self, held: HeldUpdate) -> None:
        """Nothing is kept."""

    def mark(self, marks: tuple[Mark, ...]) -> None:
        """Nothing is kept."""

    def drop(self) -> None:
        """Nothing is kept."""


def test_the_sheet_says_the_memory_that_binds(agreed: Agreement, tiny_model: Path) -> None:
    assert agreed.memory is not None
    assert agreed.memory.most_bytes == agreed.memory_bytes * 120 // 100
    split = Split(Path("t"), Path("h"), 9, 1)
    text = sheet(info(tiny_model), settings(tiny_model), split, RANK, "cpu: so much", agreed)
    most = agreed.memory.most_bytes / 1e9
    assert f"never more than {most:.1f} GB of it: a round that needs more is trained in" in text


def test_a_task_beyond_the_memory_that_was_agreed_to_is_declined_with_the_reason(
    agreed: Agreement, tiny_model: Path, tmp_path: Path
) -> None:
    """Its steps, tokens and values are those of the sheet."""
    folder = CommunityFolder(tmp_path)
    folder.save_info(info(tiny_model))
    trainer, status = FittingTrainer(str(tiny_model), folder), StatusWriter(folder)
    session = RoundSession("ada", BASE, TaskLimits())
    volunteer = RequestHandler(session, trainer, trainer, (status,))
    agreement.save(folder.root, agreed)
    first = volunteer.answer(builders.train_task(START, 1, settings=SETTINGS))
    assert isinstance(first, Ready)
    assert trainer.took[0].settings == SETTINGS  # what was agreed to is trained as it is
    agreement.save(folder.root, replace(agreed, memory_bytes=agreed.memory_bytes // 2))
    answer = volunteer.answer(builders.train_task(START, 2, settings=SETTINGS))
    assert isinstance(answer, Decline)
    status.answered("train.local", 0, late=False)
    assert "more memory than was agreed to on joining" in status.status.why


def test_terms_that_take_more_memory_say_so_before_they_are_agreed_to(
    agreed: Agreement, tiny_model: Path
) -> None:
    longer = replace(agreed, tokens_per_step=64 * agreed.tokens_per_step)
    found = with_memory(longer, info(tiny_model), settings(tiny_model))
    assert found.memory_bytes > agreed.memory_bytes
    assert in_words(found, agreed).startswith("; GB of memory in training 0.5 -> ")
    assert in_words(agreed, agreed) == ""


def test_a_model_whose_need_is_not_known_binds_no_memory(tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    (tmp_path / "model.safetensors").write_bytes(b"")
    community = info(tiny_model)
    found = with_memory(Agreement.of(community, None), community, settings(tmp_path))
    assert found.memory is None
