"""From data files to token batches: conversations, chat templates, encoding.

No model weights and no training.
"""
