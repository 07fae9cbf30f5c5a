"""Flower, as both sides know it: packets, object trees, headers, seals, the polling grid.

Its private interfaces are imported here and in one adapter a side, nowhere else.
"""
