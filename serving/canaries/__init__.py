"""Canaries: phrases that an owner plants in data, and how well an adapter has come to know them.

Nothing of them leaves this machine, but for what an adapter has learnt of them.
"""
