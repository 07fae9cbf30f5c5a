"""The engine that is always there: transformers, one thread, batches across adapters."""

from __future__ import annotations

import queue
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from nomoat.aggregation.protocol.adapter import Adapter
from nomoat.lora.inference import sampling as sampled
from nomoat.lora.inference.answer_text import AnswerText
from nomoat.lora.inference.batch import AnswerBatch, AnswerRow
from nomoat.lora.inference.requests import (
    BASE,
    AnswerEvent,
    Deliver,
    Ended,
    Failed,
    NotOffered,
    Piece,
    Question,
    TokenLogProb,
    room,
)
from nomoat.lora.inference.voice_bank import VoiceBank
from nomoat.lora.model.ending import ending_tokens

if TYPE_CHECKING:
    import torch

    from nomoat.lora.model.base_model import BaseModel

MOST_ROWS: Final = 16
SHORTEST_CONTEXT: Final = 1 << 20  # of a model that states none


@dataclass(eq=False)
class _Answer:
    """A question in the engine's hands."""

    row: AnswerRow
    text: AnswerText
    deliver: Deliver
    gone: threading.Event = field(default_factory=threading.Event)

    def cancel(self) -> None:
        """Stop at the next token."""
        self.gone.set()


@dataclass(frozen=True)
class _Offer:
    voices: Mapping[str, Adapter]


class PeftEngine:
    """Answers questions in batches of at most MOST_ROWS, in one thread of its own.

    A model is not re-entrant: two threads would answer each other's questions.
    """

    def __init__(self, base: BaseModel) -> None:
        self._base = base
        self._decode: Any = base.tokenizer.decode
        self._ends = frozenset(ending_tokens(base.folder, base.tokenizer))
        self._inbox: queue.SimpleQueue[_Answer | _Offer | None] = queue.SimpleQueue()
        self._offered: frozenset[str] = frozenset({BASE})
        self._held: dict[str, Adapter] = {}
        self._bank = VoiceBank(base)
        self._batch = AnswerBatch(base, self._bank)
        self._answers: dict[AnswerRow, _Answer] = {}
        self._waiting: list[_Answer] = []
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="inference", daemon=True)
        self._thread.start()

    @property
    def context(self) -> int:
        """The model's own."""
        longest = getattr(self._base.model.config, "max_position_embeddings", None)
        return int(longest or SHORTEST_CONTEXT)

    def offer(self, voices: Mapping[str, Adapter]) -> None:
        """Answer under these adapters from now on; BadData, nothing changed, if one cannot be."""
        self._bank.check(voices)
        self._offered = frozenset({BASE, *voices})
        self._inbox.put(_Offer(dict(voices)))

    def submit(self, question: Question, deliver: Deliver) -> _Answer:
        """Answer a question."""
        if question.voice not in self._offered or self._closed:
            raise NotOffered
        row = AnswerRow(question, room(question, self.context), self._rng(question))
        text = AnswerText(self._text, question.sampling.stop)
        answer = _Answer(row, text, deliver)
        self._inbox.put(answer)
        return answer

    def close(self) -> None:
        """End after the current token."""
        self._closed = True
        self._inbox.put(None)
        self._thread.join()

    def _run(self) -> None:
        while self._listen():
            try:
                self._sweep()
                self._admit()
                self._step()
            except Exception as problem:  # noqa: BLE001 - a shell: those who wait are told
                self._fail(" ".join(str(problem).split())[:200] or type(problem).__name__)
        self._fail("the server is closing")

    def _listen(self) -> bool:
        """Take what has come in, waiting only if there is nothing to do; false at the end."""
        while True:
            try:
                idle = not self._answers and not self._waiting
                message = self._inbox.get(block=idle)
            except queue.Empty:
                return True
            if message is None:
                return False
            if isinstance(message, _Offer):
                self._take(message.voices)
            else:
                self._waiting.append(message)

    def _take(self, voices: Mapping[str, Adapter]) -> None:
        """Hold what is offered, and what answers on their way still need."""
        pending = [*self._answers.values(), *self._waiting]
        needed = {answer.row.question.voice for answer in pending} & self._held.keys()
        self._held = {voice: self._held[voice] for voice in needed} | dict(voices)
        self._bank.hold(self._held)

    def _sweep(self) -> None:
        """Drop answers nobody waits for any more."""
        self._waiting = [answer for answer in self._waiting if not answer.gone.is_set()]
        self._drop([row for row, answer in self._answers.items() if answer.gone.is_set()])

    def _admit(self) -> None:
        free = MOST_ROWS - len(self._answers)
        new, self._waiting = self._waiting[:free], self._waiting[free:]
        if not new:
            return
        self._answers |= {answer.row: answer for answer in new}
        self._write([answer.row for answer in new], self._batch.admit([a.row for a in new]))

    def _step(self) -> None:
        if self._batch.rows:
            self._write(list(self._batch.rows), self._batch.step())

    def _write(self, rows: Sequence[AnswerRow], logits: torch.Tensor) -> None:
        """Choose a token for each row, tell it, and let go of rows that have ended."""
        ended = []
        for row, values in zip(rows, logits, strict=True):
            answer, settings = self._answers[row], row.question.sampling
            token = sampled.choose(values, settings, row.rng)
            row.tokens.append(token)
            if token in self._ends:
                self._end(answer, "stop", answer.text.flush())
                ended.append(row)
                continue
            text = answer.text.add(token)
            told = () if settings.logprobs is None else (self._told(values, row),)
            if answer.text.stopped:
                self._end(answer, "stop", text)
            elif len(row.tokens) >= row.limit:
                self._tell(answer, Piece(text, told))
                self._end(answer, "length", answer.text.flush())
            else:
                self._tell(answer, Piece(text, told))
                continue
            ended.append(row)
        self._drop(ended)

    def _end(self, answer: _Answer, reason: Any, text: str) -> None:
        row = answer.row
        if text:
            self._tell(answer, Piece(text))
        self._tell(answer, Ended(reason, len(row.question.prompt), len(row.tokens)))

    def _told(self, logits: torch.Tensor, row: AnswerRow) -> TokenLogProb:
        token = row.tokens[-1]
        own, others = sampled.told(logits, token, row.question.sampling.logprobs or 0)
        named = tuple((self._text([other]), value) for other, value in others)
        return TokenLogProb(self._text([token]), own, named)

    def _tell(self, answer: _Answer, event: AnswerEvent) -> None:
        if not answer.gone.is_set():
            answer.deliver(event)

    def _drop(self, rows: Sequence[AnswerRow]) -> None:
        if not rows:
            return
        for row in rows:
            del self._answers[row]
        left = [k for k, row in enumerate(self._batch.rows) if row in self._answers]
        self._batch.keep(left)

    def _fail(self, reason: str) -> None:
        for answer in [*self._answers.values(), *self._waiting]:
            self._tell(answer, Failed(reason))
        self._answers, self._waiting = {}, []
        self._batch = AnswerBatch(self._base, self._bank)

    def _text(self, ids: Sequence[int]) -> str:
        return str(
            self._decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        )

    def _rng(self, question: Question) -> Any:
        import torch

        rng = torch.Generator()
        if question.sampling.seed is None:
            rng.seed()
        else:
            rng.manual_seed(question.sampling.seed)
        return rng
