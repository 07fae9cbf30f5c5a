"""Checks of this machine, each with the one command that mends what is wrong.

Looks, and changes nothing.
"""
