"""What coordinator and volunteers say to each other, and who signs it.

Frozen messages, the only decoder of bytes, signatures; nothing here adds up adapters.
"""
