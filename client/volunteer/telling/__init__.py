"""Events of a volunteer as lines for its owner's terminal, one each, as they happen.

The state itself, for whoever asks later, is status.py's; nothing here decides anything.
"""
