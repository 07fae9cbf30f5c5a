"""The outcome of a simulation: results, curves, samples, pages.

Reads what a run wrote; runs nothing.
"""
