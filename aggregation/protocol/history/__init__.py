"""Signed statements of a community about what has happened to itself.

No rules about whom to believe: they are whoever reads them's.
"""
