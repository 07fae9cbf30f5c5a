"""The log of what left this machine, its chain, and a preview of what would leave it.

Only records; nothing is sent from here.
"""
