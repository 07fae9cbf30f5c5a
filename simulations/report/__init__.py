"""What a simulation came to: results, curves, samples, pages.

Reads what a run wrote; runs nothing.
"""
