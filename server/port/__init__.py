"""What a network peer meets: HTTP application, limits, buffers, uploads, the fleet grid.

Everything that arrives is hostile; nothing is decided here about rounds.
"""
