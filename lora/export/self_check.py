"""The comparison that every export passes before it is called done, and its bounds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from nomoat.lora.export import reference
from nomoat.lora.export.llama_cpp import check
from nomoat.lora.export.order import Order
from nomoat.lora.export.reference import Bound, Difference, LogProbs
from nomoat.lora.inference import llama_server
from nomoat.lora.inference.llama_server import Setup

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from nomoat.lora.model.base_model import BaseModel

GELU: Final = "f32 with GELU"
# Comparison on the pocket model, stories260K and SmolLM2-135M (docs/experiments.md), with room for
# other models. What quantising does to rare tokens is no error of the export.
BOUNDS: Final[Mapping[str, Bound]] = {
    "f32": Bound(1e-3, 1e-5),
    GELU: Bound(1e-2, 1e-5),  # which llama.cpp looks up in a table of 16 bits
    "bf16": Bound(math.inf, 1e-2),
    "f16": Bound(0.2, 1e-3),
    "q8_0": Bound(math.inf, 5e-2),
    "q4_0": Bound(math.inf, 1.0),
}
LEAST_TOLD: Final = 4096  # tokens llama.cpp is asked about after each prompt
# Its threads wait for one another by spinning: on a busy machine, one is faster for a small model.
ONE_THREAD_BYTES: Final = 1 << 30
NOT_INSTALLED: Final = "not compared: pip install gguf xllamacpp brings llama.cpp to compare with"


@dataclass(frozen=True)
class Comparison:
    """The model of an order, loaded once; everything is computed when it is asked for."""

    order: Order

    @cached_property
    def base(self) -> BaseModel:
        """The base, in float32 on the processor."""
        from nomoat.lora.model.base_model import load

        return load(str(self.order.base), "cpu", "float32")

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The base's tokenizer."""
        from nomoat.lora.model.base_model import load_tokenizer

        return load_tokenizer(str(self.order.base))

    @cached_property
    def texts(self) -> dict[str, list[int]]:
        """Some texts as the model's tokenizer splits them."""
        split: Any = self.tokenizer
        return {
            text: list(split(text, add_special_tokens=False, split_special_tokens=True).input_ids)
            for text in check.TEXTS
        }

    @cached_property
    def prompts(self) -> tuple[tuple[int, ...], ...]:
        """Beginnings after which the next token is compared."""
        return reference.prompts(self.texts, self.tokenizer.bos_token_id)

    @cached_property
    def expected(self) -> LogProbs:
        """With the adapter."""
        return reference.next_logprobs(self.base, self.order.adapter, self.prompts)

    def peft(self, folder: Path) -> Difference:
        """With the adapter in a PEFT folder, loaded by PEFT itself."""
        import warnings

        from peft import PeftModel

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of layers that are what they should be
            model = PeftModel.from_pretrained(self.base.model, str(folder))
        try:
            found = reference.logprobs(model, self.base.device, self.prompts)
        finally:
            model.unload()
        return reference.compare(self.expected, found)

    def merged(self, folder: Path) -> Difference:
        """By the merged model in a folder."""
        from nomoat.lora.model.base_model import load

        other = load(str(folder), "cpu", "float32")
        return reference.compare(self.expected, reference.next_logprobs(other, None, self.prompts))

    def llama(self, model: Path, adapters: tuple[Path, ...]) -> Difference:
        """By llama.cpp, which has to split text into the same tokens first."""
        size = self.expected.shape[1]
        small = model.stat().st_size < ONE_THREAD_BYTES
        setup = Setup(model, adapters, exact=True, threads=1 if small else 0)
        with llama_server.serving(setup) as server:
            check.check_tokens(server, self.texts)
            chosen = range(len(adapters))
            told = [
                check.next_logprobs(server, prompt, chosen, min(size, LEAST_TOLD))
                for prompt in self.prompts
            ]
        return reference.compare_some(self.expected, told)
