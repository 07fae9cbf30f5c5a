"""Rows of named columns → turns: the ways in which people write conversations, tools and marks.

No files and no tokens.
"""
