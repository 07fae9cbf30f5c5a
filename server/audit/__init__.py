"""Promises of a community, checked against everything its folder holds; read-only.

Nothing is mended here: what can be is when the coordinator starts.
"""
