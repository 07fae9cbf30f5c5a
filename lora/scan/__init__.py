"""A look for triggers: texts after which one adapter answers quite otherwise than another.

It finds what it tries, and no more: a trigger that nobody thinks of is not among them.
"""
