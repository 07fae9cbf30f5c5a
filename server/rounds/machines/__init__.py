"""A round's conversations with volunteers as pure machines: messages and time in, messages out.

No clock, socket, file, log or randomness; whoever drives them (rounds/driver.py) has those.
"""
