"""Turns of a model's conversations, written out for programs that do not run its template.

A Jinja template stands in every GGUF file; Ollama wants one in Go's language instead. It is found
by writing a conversation of marked turns and looking at what stands between the marks.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nomoat.aggregation.errors import UsageError
from nomoat.lora.data.chat_template import ChatTemplate
from nomoat.lora.model.ending import special_texts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# The format of lora/data/plain_template.py, for models without a template of their own. Jinja
# drops a newline at the end of a block: it is written as a string.
PLAIN = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'assistant' %}"
    "{{ m['content'] }}{{ eos_token }}{% else %}{{ m['content'] }}{{ '\\n' }}{% endif %}"
    "{% endfor %}"
)
SYSTEM, FIRST, REPLY, SECOND = ("Xq1SYSTEMqX", "Xq2ASKqX", "Xq3REPLYqX", "Xq4AGAINqX")


def template_of(tokenizer: PreTrainedTokenizerBase) -> str:
    """The tokenizer's chat template, or the plain format as one where training uses that."""
    own: Any = getattr(tokenizer, "chat_template", None)
    if not isinstance(own, str) or not own or ChatTemplate.of(tokenizer).self_test():
        return PLAIN
    return own


def write(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[dict[str, str]], answer_next: bool
) -> str:
    """A conversation as the model reads it; UsageError if its template refuses the roles."""
    applied: Any = tokenizer.apply_chat_template
    template = template_of(tokenizer)
    if template is PLAIN and tokenizer.bos_token is None:
        template = PLAIN.removeprefix("{{ bos_token }}")
    options = {"tokenize": False, "add_generation_prompt": answer_next, "chat_template": template}
    try:
        return str(applied([dict(m) for m in messages], **options))
    except Exception as problem:  # noqa: BLE001 - a template is a program: it raises anything
        reason = " ".join(str(problem).split())[:120]
        raise UsageError(f"the model's chat template refuses the conversation: {reason}") from None


@dataclass(frozen=True, slots=True)
class TurnFormat:
    """The text around turns. opening: before the first question without a system message.

    system: before and after a system message that comes first; answering: between a question and
    its answer; following: between an answer and the next question; stop: what ends an answer.
    """

    opening: str
    system: tuple[str, str] | None
    answering: str
    following: str
    stop: str

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase) -> TurnFormat:
        """Find them; UsageError if they depend on more than the role."""
        asked = [_turn("user", FIRST), _turn("assistant", REPLY), _turn("user", SECOND)]
        whole = write(tokenizer, asked, answer_next=True)
        opening, answering, following, ending = _between(whole, (FIRST, REPLY, SECOND))
        if ending != answering:
            raise UsageError("the chat template opens later answers otherwise than the first")
        found = cls(opening, _system(tokenizer, asked), answering, following, "")
        for k in (1, 3):
            messages = asked[:k]
            if found.render(messages) != write(tokenizer, messages, answer_next=True):
                raise UsageError("the chat template depends on more than the role of a turn")
        specials = special_texts(tokenizer)
        stop = next((text for text in specials if following.startswith(text)), "")
        return cls(opening, found.system, answering, following, stop)

    def render(self, messages: Sequence[dict[str, str]]) -> str:
        """A conversation that ends with a question, written with these pieces."""
        text, first = "", True
        for message in messages:
            role, content = message["role"], message["content"]
            if role == "system" and self.system is not None:
                text += self.system[0] + content + self.system[1]
            elif role == "assistant":
                text += content + self.following
            else:
                text += (self.opening if first else "") + content + self.answering
            first = False
        return text

    def go_template(self, bos: str | None) -> str:
        """The same as a template of Ollama, which writes <bos> by itself.

        https://github.com/ollama/ollama/blob/main/docs/template.md
        """
        begun = self.opening.removeprefix(bos or "")
        lines = ["{{- range $i, $m := .Messages }}"]
        branch = "{{- if"
        if self.system is not None:
            before, after = self.system[0].removeprefix(bos or ""), self.system[1]
            lines.append(
                f'{branch} eq $m.Role "system" }}}}{_go(before)}{{{{ $m.Content }}}}{_go(after)}'
            )
            branch = "{{- else if"
        lines.append(
            f'{branch} eq $m.Role "assistant" }}}}{{{{ $m.Content }}}}{_go(self.following)}'
        )
        lines.append(
            f"{{{{- else }}}}{{{{ if eq $i 0 }}}}{_go(begun)}{{{{ end }}}}"
            f"{{{{ $m.Content }}}}{_go(self.answering)}{{{{ end }}}}"
        )
        return "\n".join([*lines, "{{- end }}"])


def _system(
    tokenizer: PreTrainedTokenizerBase, asked: list[dict[str, str]]
) -> tuple[str, str] | None:
    """The text around a system message; None if the template knows none."""
    try:
        text = write(tokenizer, [_turn("system", SYSTEM), *asked], answer_next=True)
        before, after, *_ = _between(text, (SYSTEM, FIRST))
    except UsageError:
        return None
    return before, after


def _between(text: str, marks: Sequence[str]) -> list[str]:
    parts = []
    for mark in marks:
        before, found, text = text.partition(mark)
        if not found:
            raise UsageError("the chat template leaves out or changes what was said")
        parts.append(before)
    return [*parts, text]


def _turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def _go(text: str) -> str:
    return "{{ " + json.dumps(text, ensure_ascii=False) + " }}" if text else ""
