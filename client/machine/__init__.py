"""This machine and its owner: readings, limits, hours, and when training must yield.

Nothing here knows what is trained.
"""
