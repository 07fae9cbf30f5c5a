"""The tokenizer and rows of tests/lora, for models of many families."""

from tests.lora.conftest import chatml, conversations, make_tokenizer

__all__ = ["chatml", "conversations", "make_tokenizer"]
