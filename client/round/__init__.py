"""A volunteer's part in a round: what a message may make this machine do, and what may leave it.

Pure machines and the Flower app around them; no files but the stored update.
"""
