"""A volunteer's side of a session: the machine, its stages, and what each message leads to.

Nothing here persists, sends or draws; secrets come in with the volunteer and die with the session.
"""
