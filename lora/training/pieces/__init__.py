"""Gradients of a piece of a batch: computed kernel by kernel, or replayed as a whole.

No order of pieces, no optimiser and no checkpoints: those are progress.py's and train.py's.
"""
