"""The messages between coordinator and volunteers, and their signatures.

Frozen messages, the only decoder of bytes, signatures; nothing here adds up adapters.
"""
