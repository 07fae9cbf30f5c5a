"""From data files to token batches: rows, conversations, chat templates, encoding.

No model weights and no training.
"""
