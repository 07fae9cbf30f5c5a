"""Commands: chat, serve, and what the group `adapter` has for other programs and variants.

A command parses, calls one function of another folder, and says what came of it.
"""
