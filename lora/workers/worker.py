"""The process that trains and evaluates: base loaded once, slot attached once, shards cached."""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
import traceback
from collections.abc import Sequence
from dataclasses import replace
from multiprocessing import parent_process
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from nomoat.aggregation.errors import DoesNotFit, LocalProtocolError, NomoatError
from nomoat.aggregation.protocol.adapter import Adapter, AdapterSpec, Vector
from nomoat.lora.canaries.readings import RowReading
from nomoat.lora.canaries.row_losses import row_losses
from nomoat.lora.data import lengths
from nomoat.lora.data.encoding import Encoded, Encoder, Example
from nomoat.lora.data.reading import read
from nomoat.lora.data.row_counts import RowUse
from nomoat.lora.device import backends, nvml_pids
from nomoat.lora.device.present import gpus_of, names
from nomoat.lora.model.adapter_slot import FROZEN, attach, detach, swap
from nomoat.lora.model.context import check_length, context_of
from nomoat.lora.model.examination import Examined, examine
from nomoat.lora.model.files import check_unchanged
from nomoat.lora.model.targets import LoraShape
from nomoat.lora.scan.plan import Shifts
from nomoat.lora.scan.shifts import scan
from nomoat.lora.training.checkpoint import Paused
from nomoat.lora.training.checkpoint import read as read_checkpoint
from nomoat.lora.training.evaluate import MeasuredLoss, evaluate, sample
from nomoat.lora.training.out_of_memory import device_failed, device_lost, out_of_memory
from nomoat.lora.training.progress import Breaks
from nomoat.lora.training.train import Given, Trained, train
from nomoat.lora.workers.encoded_shards import EncodedShards
from nomoat.lora.workers.environment import prepare
from nomoat.lora.workers.interruptions import Between, Telling, WorkerOrders
from nomoat.lora.workers.jobs import (
    EvaluateJob,
    HeldBase,
    Interval,
    Job,
    JointJob,
    LengthsJob,
    RowLossesJob,
    SampleJob,
    ScanJob,
    ShardCounts,
    ShardJob,
    SpecJob,
    TrainJob,
    digest,
)
from nomoat.lora.workers.joint_training import train_jointly

if TYPE_CHECKING:
    from peft import PeftModel

    from nomoat.lora.model.base_model import BaseModel

PROMPT_TOKENS = 2048
LAST_WORDS_S = 10.0  # of a worker whose parent is gone

_Shape = tuple[AdapterSpec, AdapterSpec | None]  # of what is trained, and of what is frozen


class Worker:
    """One base model with one adapter slot, and the shards it has encoded lately."""

    def __init__(
        self,
        base: BaseModel,
        orders: WorkerOrders | None = None,
        base_hash: bytes | None = None,
        others: Sequence[BaseModel] = (),
    ) -> None:
        """Hold `base`; BadData if its files are not those of `base_hash`, now or at any job.

        others: the same base on other devices, which train with it.
        """
        self._base, self._bases = base, (base, *others)
        self._base_hash = base_hash
        self._check_base()
        self._orders = orders
        self._recomputes = False
        self._slot: tuple[_Shape, tuple[PeftModel, ...]] | None = None
        self._context = context_of(base.model)
        self._shards = EncodedShards(base.tokenizer, self._context)

    def run(self, job: Job) -> Any:
        """Do the job and return its result, whose type stands at the job's class."""
        self._check_base()
        result = self._do(job)
        self._check_base()
        return result

    def _check_base(self) -> None:
        if self._base_hash is not None:
            check_unchanged(self._base.folder, self._base_hash)

    def _do(self, job: Job) -> Any:
        match job:
            case TrainJob() | JointJob():
                return self._train(job) if isinstance(job, TrainJob) else self._train_jointly(job)
            case EvaluateJob():
                return self._evaluate(job)
            case SampleJob():
                return self._sample(job)
            case ScanJob() | RowLossesJob():
                return self._scan(job) if isinstance(job, ScanJob) else self._read_rows(job)
            case SpecJob():
                return self._examine(job)
            case ShardJob() | LengthsJob():
                return self._measured(job)
        raise LocalProtocolError(f"{type(job).__name__} is no job of a worker")

    def _examine(self, job: SpecJob) -> Examined:
        check_length(self._context, job.seq_len)
        self._empty_slot()
        return examine(self._base, LoraShape(job.rank, job.alpha, job.target_modules, job.rslora))

    def _encoded(self, job: TrainJob) -> tuple[Encoded, RowUse]:
        return self._shards.encoded(job.shard, job.settings.seq_len)

    def _train_jointly(self, job: JointJob) -> list[Trained | NomoatError]:
        self._recompute(wanted=False)
        return train_jointly(job, self._model, self._encoded, self._train)

    def _train(self, job: TrainJob) -> Trained:
        encoded, rows = self._encoded(job)
        adapter = Adapter(job.spec, job.vector)
        model = self._model(job.spec, None if job.frozen is None else job.frozen.spec)
        if job.frozen is not None:
            for one in (model, *self._replicas):
                swap(one, job.frozen, FROZEN)
        self._recompute(job.checkpointing)
        given = Given(job.moments, self._breaks(job), job.share, self._replicas)
        if self._orders is not None:
            self._orders.begin()
        examples, settings = encoded.examples, job.settings
        found = train(model, adapter, examples, settings, job.seed, time.monotonic, given)
        return replace(found, rows=rows)

    def _breaks(self, job: TrainJob) -> Breaks:
        between = told = None
        if self._orders is not None:
            between = Between(self._orders, job.checkpoint, backends.of(self._base.device))
            told = Telling(self._orders)
        name, saved = b"", None
        if job.checkpoint is not None:
            name = digest(job)
            saved = read_checkpoint(job.checkpoint, name)
        return Breaks(name, saved, between, job.most_tokens, job.adam_8bit, told)

    def _recompute(self, wanted: bool) -> None:
        """Keep only each layer's input for the backward pass, or all activations."""
        if wanted == self._recomputes:
            return
        for base in self._bases:
            model: Any = base.model
            if wanted:
                model.gradient_checkpointing_enable({"use_reentrant": False})
            else:
                model.gradient_checkpointing_disable()
        self._recomputes = wanted

    def _evaluate(self, job: EvaluateJob) -> MeasuredLoss:
        encoded, rows = self._shards.encoded(job.shard, job.settings.seq_len)
        adapter, model = _adapter(job.spec, job.vector), self._model(job.spec)
        batch_size = job.settings.batch_size
        found = evaluate(model, adapter, encoded.examples, batch_size, job.most_tokens)
        return replace(found, rows=rows)

    def _sample(self, job: SampleJob) -> tuple[str, ...]:
        encoder = Encoder.of(self._base.tokenizer, PROMPT_TOKENS)
        adapter, model = _adapter(job.spec, job.vector), self._model(job.spec)
        length = job.max_new_tokens
        return tuple(
            sample(model, adapter, encoder, prompt, length, job.continue_text)
            for prompt in job.prompts
        )

    def _scan(self, job: ScanJob) -> Shifts:
        encoder = Encoder.of(self._base.tokenizer, job.seq_len)
        pair = Adapter(job.spec, job.before), Adapter(job.spec, job.after)
        rows = read(job.shard).conversations
        return scan(self._model(job.spec), pair, encoder, rows, job.plan, time.monotonic)

    def _measured(
        self, job: ShardJob | LengthsJob
    ) -> ShardCounts | tuple[lengths.RowLengths, int | None]:
        if isinstance(job, ShardJob):
            return _counts(self._shards.encoded(job.shard, job.seq_len)[0].examples)
        encoder = Encoder.of(self._base.tokenizer, lengths.UNCUT)
        return lengths.measure(encoder, read(job.shard).conversations), self._context

    def _read_rows(self, job: RowLossesJob) -> tuple[RowReading, ...]:
        most = PROMPT_TOKENS if self._context is None else min(PROMPT_TOKENS, self._context)
        encoder = Encoder.of(self._base.tokenizer, most)
        adapter, model = _adapter(job.spec, job.vector), self._model(job.spec)
        return row_losses(model, adapter, encoder, job.rows, job.seconds, time.monotonic)

    def _model(self, spec: AdapterSpec, frozen: AdapterSpec | None = None) -> PeftModel:
        if self._slot is None or self._slot[0] != (spec, frozen):
            self._empty_slot()
            models = tuple(attach(base, spec, frozen) for base in self._bases)
            self._slot = ((spec, frozen), models)
        return self._slot[1][0]

    @property
    def _replicas(self) -> tuple[PeftModel, ...]:
        return () if self._slot is None else self._slot[1][1:]

    def _empty_slot(self) -> None:
        for model in () if self._slot is None else self._slot[1]:
            detach(model)
        self._slot = None


def _adapter(spec: AdapterSpec, vector: Vector | None) -> Adapter | None:
    return None if vector is None else Adapter(spec, vector)


def _counts(examples: tuple[Example, ...]) -> ShardCounts:
    tokens = sum(len(example.input_ids) for example in examples)
    return ShardCounts(len(examples), tokens, sum(int(e.trained.sum()) for e in examples))


def main(pipe: Connection, base: HeldBase) -> None:
    """Serve jobs from `pipe` until it closes. Each answer is (what, value).

    First ("device", ("cpu" | "cuda" …, this process's ids at the GPU's driver)), then ("ready",
    None) or ("error", …); for each job
    ("done", (result, Interval)), ("paused", None), ("error", NomoatError), ("crash", traceback
    text) or ("lost", DoesNotFit), after which this process ends: its GPU may be of no use to it
    any more. Before the first piece of a run comes ("begun", None). Orders (jobs.Order) have no
    answer of their own.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    prepare()
    gc.disable()  # while libraries are imported: a million objects, nothing to collect
    orders = WorkerOrders(pipe)
    threading.Thread(target=_end_with_parent, args=(orders,), daemon=True).start()
    try:
        pipe.send(_attempt(lambda: ("device", _started_device(base))))
        worker: Worker | None = None
        while True:
            if worker is None:
                worker, answer = _started(base, orders)
                gc.freeze()
                gc.enable()
            else:
                job = pipe.recv()
                if orders.obey(job):
                    continue
                answer = _answer(worker, job, orders)
            pipe.send(answer)
            if worker is None or answer[0] == "lost":
                return
    except (EOFError, OSError):
        return  # the parent has closed the pool


def _started_device(base: HeldBase) -> tuple[str, frozenset[int]]:
    """Start every device; (their kind, the ids that their driver has for this process)."""
    import torch

    if base.threads > 1:
        torch.set_num_threads(base.threads)
    found = [backends.pick(name) for name in names(base.device)]
    used = gpus_of(base.device)
    before = [nvml_pids.on_device(which) for which in used]
    for device in found:
        device.start()
    if found[0].kind != "cuda":
        return found[0].kind, frozenset()
    after = [nvml_pids.on_device(which) for which in used]
    ours = [nvml_pids.ours(*looks, os.getpid()) for looks in zip(before, after, strict=True)]
    return "cuda", frozenset().union(*ours)


def _started(base: HeldBase, orders: WorkerOrders) -> tuple[Worker | None, tuple[str, Any]]:
    from nomoat.lora.model.bases.loaded_models import base_model

    def load() -> tuple[str, Any]:
        held_on = (base.device,) if base.layout.over_gpus else names(base.device)
        bases = [base_model(base.folder, name, base.bits, base.layout) for name in held_on]
        first, *others = bases
        return "ready", Worker(first, orders, base.base_hash, others)

    what, value = _attempt(load)
    return (value, (what, None)) if what == "ready" else (None, (what, value))


def _answer(worker: Worker, job: Job, orders: WorkerOrders) -> tuple[str, Any]:
    def work() -> tuple[str, Any]:
        if orders.pausing:
            raise Paused
        started = time.monotonic()
        result = worker.run(job)
        return "done", (result, Interval(started, time.monotonic()))

    try:
        return _attempt(work)
    finally:
        orders.training = orders.pausing = False


def _attempt(work: Any) -> tuple[str, Any]:
    try:
        return work()  # type: ignore[no-any-return]
    except Paused:
        return "paused", None
    except NomoatError as problem:
        return "error", problem
    except Exception as problem:  # noqa: BLE001 - a shell: the parent must know, whatever it is
        if out_of_memory(problem):
            return "lost" if device_lost(problem) else "error", DoesNotFit(
                "the memory is too small for this batch; use a smaller batch size, sequence length "
                "or model"
            )
        if device_failed(problem):
            said = " ".join(str(problem).split())[:120]
            return "lost", NomoatError(f"the GPU failed ({said}); if it happens again, see dmesg")
        return "crash", traceback.format_exc()


def _end_with_parent(orders: WorkerOrders) -> None:
    """End when the parent is gone, killed perhaps: nobody waits for this job's result.

    A run writes its checkpoint first, for the parent that will be started again.
    """
    parent = parent_process()
    if parent is None:
        return
    parent.join()
    orders.orphaned.set()
    until = time.monotonic() + LAST_WORDS_S
    while orders.training and time.monotonic() < until:
        time.sleep(0.02)
    os._exit(1)
