"""The agreement of the consent sheet, kept, and held against what is asked later.

    agreed = Agreement.of(info, terms) # on the sheet, kept when it is accepted
    why = within(agreed, task)                       # None, or what the task asks for beyond it

agreed.json in the community's folder holds it. Pure but for `load` and `save`.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from nomoat.aggregation import methods
from nomoat.aggregation.errors import NomoatError, UsageError
from nomoat.aggregation.protocol import wire
from nomoat.aggregation.protocol.enrolment import CommunityInfo
from nomoat.aggregation.protocol.messages import EvaluateTask, TrainTask
from nomoat.aggregation.protocol.terms.privacy_terms import PrivacyTerms
from nomoat.aggregation.protocol.work_terms import MOST_A_DAY, WorkTerms
from nomoat.aggregation.secagg.parameters import NoiseRule
from nomoat.client.machine.free_memory import MemoryBound
from nomoat.client.round.session import CANDIDATES
from nomoat.client.round.task_limits import TaskLimits
from nomoat.storage.private import write_private
from nomoat.storage.releases import record

FILE = "agreed.json"
ROOM_PERCENT = 20
UNKNOWN_RATE = 10.0  # the most a task can say
BYTES = 4  # of a value


@dataclass(frozen=True, slots=True)
class Agreement:
    """The figures of a consent. Rounds are a day's; learning_rate is the highest of any round.

    epochs: passes over the rows, where a community asks for those and not for steps. trainings: in
    a round; 2 where a volunteer trains an adapter of its own, too. room_percent: by how much a task
    may exceed steps, passes, tokens, values, memory and learning rate. weak: a session of few, or
    without masks, was accepted by name. batch_size: rows of a step; with fewer, less the same room,
    the losses that are told would be of single rows. audit_words: of the sketch that the
    coordinator learns of each update. noise_multiplier to min_gap: of the noise in sums that this
    machine counts on (aggregation/protocol/terms/privacy_terms.py). edition, edition_at: number and
    time of the terms agreed to last; 0 if they had none. memory_bytes: that the sheet said training
    takes on memory_on (a device and the bits of the base); 0 if it said nothing.
    """

    steps: int
    epochs: int
    tokens_per_step: int
    trainings: int
    adapter_values: int
    learning_rate: float
    rounds_per_day: int
    evaluations: int = CANDIDATES
    room_percent: int = ROOM_PERCENT
    weak: bool = False
    batch_size: int = 1
    audit_words: int = 0
    noise_multiplier: float = 0.0
    epsilon: float = 0.0
    delta: float = 0.0
    participations: int = 0
    min_gap: int = 0
    edition: int = 0
    edition_at: int = 0
    memory_bytes: int = 0
    memory_on: str = ""

    @classmethod
    def of(cls, info: CommunityInfo, terms: WorkTerms | None, weak: bool = False) -> Agreement:
        """The agreement to what a community says of itself.

        terms: None from a coordinator of a release before there were any, which says nothing of
        passes, learning rates and days: then the owner's own limits are all there is.
        """
        if terms is None:
            tokens, owners = info.batch_size * info.seq_len, TaskLimits()
            most = owners.max_adapter_values if grows(info.method) else info.adapter_values
            figures = (info.local_steps, owners.max_epochs, tokens, 2, most)
            return cls(*figures, UNKNOWN_RATE, MOST_A_DAY, weak=weak, batch_size=info.batch_size)
        return cls.signed(terms, weak)

    @classmethod
    def signed(cls, terms: WorkTerms, weak: bool = False) -> Agreement:
        """The agreement to signed terms."""
        settings = terms.settings
        return cls(
            settings.local_steps,
            settings.local_epochs,
            settings.batch_size * settings.seq_len,
            2 if settings.personal == "adapter" else 1,
            terms.adapter_values,
            settings.learning_rate,
            terms.rounds_per_day,
            weak=weak,
            batch_size=settings.batch_size,
        )

    def under(self, terms: PrivacyTerms) -> Agreement:
        """The same agreement, to these terms of privacy, too."""
        return replace(
            self,
            audit_words=terms.audit_words,
            noise_multiplier=terms.noise_multiplier,
            epsilon=terms.epsilon,
            delta=terms.delta,
            participations=terms.participations,
            min_gap=terms.min_gap,
        )

    @property
    def noise(self) -> NoiseRule | None:
        """The rule of noise, None where none was agreed to."""
        if not self.noise_multiplier:
            return None
        return NoiseRule(self.noise_multiplier, self.participations, self.min_gap)

    @property
    def memory(self) -> MemoryBound | None:
        """The memory that training may take, with the room there is; None where none was stated."""
        if not self.memory_bytes:
            return None
        return MemoryBound(int(self.at_most(self.memory_bytes)), self.memory_on)

    @property
    def signs_values(self) -> bool:
        """True if the community has signed how large its adapter becomes."""
        return self.learning_rate < UNKNOWN_RATE

    def renewed(self, terms: WorkTerms, edition: int, edition_at: int) -> Agreement:
        """The agreement to an edition's work; what else was agreed to stays."""
        new = self.signed(terms)
        return replace(
            self,
            steps=new.steps,
            epochs=new.epochs,
            tokens_per_step=new.tokens_per_step,
            trainings=new.trainings,
            adapter_values=new.adapter_values,
            learning_rate=new.learning_rate,
            rounds_per_day=new.rounds_per_day,
            batch_size=new.batch_size,
            edition=edition,
            edition_at=edition_at,
        )

    def at_most(self, figure: float) -> float:
        """A figure with the room there is."""
        return figure * (100 + self.room_percent) / 100


def most_bytes(agreed: Agreement) -> int:
    """Return the bytes of the largest message there can be in a round of this agreement.

    The largest is an adapter, or what an exchange gave, which may be a few times as large.
    """
    values = agreed.at_most(agreed.adapter_values)
    return wire.MAX_HEAD_BYTES + min(wire.MAX_BODY_BYTES, int(4 * BYTES * values))


def grows(method: str) -> bool:
    """Return True if the adapters of this method become larger from round to round."""
    try:
        return methods.get(method).traits.grows
    except UsageError:
        return False


def within(agreed: Agreement, task: TrainTask | EvaluateTask) -> str | None:
    """Return what a task asks for beyond the agreement, in words for the owner; None if nothing."""
    settings = task.settings
    tokens = settings.batch_size * settings.seq_len
    asked = [
        ("values in the adapter", task.shape.spec().size, agreed.adapter_values),
        ("tokens a step", tokens, agreed.tokens_per_step),
    ]
    if isinstance(task, TrainTask):
        passes = ("passes over your rows", settings.local_epochs, agreed.epochs)
        steps = ("steps", settings.local_steps, agreed.steps)
        trainings = 2 if settings.personal == "adapter" else 1
        asked += [
            passes if settings.local_epochs else steps,
            ("trainings a round", trainings, agreed.trainings),
        ]
        if settings.learning_rate > agreed.at_most(agreed.learning_rate):
            return _more("a learning rate of", settings.learning_rate, agreed.learning_rate, agreed)
        if settings.batch_size * (100 + agreed.room_percent) < agreed.batch_size * 100:
            return (
                f"the round asks for steps of {settings.batch_size} rows; {agreed.batch_size} were "
                "agreed to on joining, and the losses told would be of fewer"
            )
    for what, found, allowed in asked:
        if found > agreed.at_most(allowed):
            return _more(what, found, allowed, agreed)
    return None


def save(folder: Path, agreed: Agreement) -> None:
    """Keep what was agreed to."""
    write_private(folder / FILE, json.dumps(asdict(agreed)).encode())


def load(folder: Path, info: CommunityInfo) -> Agreement:
    """Read what was agreed to; without the file, what the community said on joining."""
    path = folder / FILE
    try:
        return record(Agreement, dict(json.loads(path.read_bytes())), path)
    except FileNotFoundError:
        return Agreement.of(info, None, weak=True)  # the sheet said so, and "Take part?" asked
    except (OSError, ValueError, TypeError):
        raise NomoatError(
            f"{path} is damaged; leave and join again, and the sheet is shown anew"
        ) from None


def _more(what: str, found: float, allowed: float, agreed: Agreement) -> str:
    return (
        f"the round asks for {what} {found:g}; {allowed:g} and {agreed.room_percent} % were agreed "
        "to on joining; to agree to more, if its terms say so: nomoat agree"
    )
