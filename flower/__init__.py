"""What both sides must know of Flower: packets, object trees, headers, seals, the polling grid.

Its private interfaces are imported here and in one adapter a side, nowhere else.
"""
