"""Sums over reports: exact, fixed-point, packed; and what a report must be to enter one.

No adapter structure and no masks: vectors of numbers in, their sum out.
"""
