"""Belonging to a community: joining, the consent sheet, the pinned roster.

No training and no rounds.
"""
