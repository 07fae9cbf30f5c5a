"""The port: the HTTP application a network peer meets, its limits, its buffers, its paths.

Everything that arrives is hostile; nothing is decided here about rounds.
"""
