"""GGUF, the format of llama.cpp and of what is built on it: layout, vocabulary, files, a check.

Needs the packages of the extra `gguf` when something is written, and nothing of torch.
"""
