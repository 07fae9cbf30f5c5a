"""OpenAI's API in front of an engine: bodies in, objects out, errors as documented.

Knows nothing of where adapters lie; computes nothing itself.
"""
