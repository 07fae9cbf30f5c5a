"""A community that was restored from a backup asks its members for what was lost since.

Nothing is signed here: what comes back is the community's own, and is only checked and kept.
"""
