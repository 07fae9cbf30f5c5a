"""Adapters combined and compared, always measured on rows before anyone uses the result.

Weights are computed in lora/export; nothing here opens a port or a terminal.
"""
