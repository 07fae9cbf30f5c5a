"""The coordinator's side of a session: the machine, and a collector for each of its phases.

It sees masked vectors and never keeps one; deadlines and retries are its caller's.
"""
