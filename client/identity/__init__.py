"""The volunteer's identity: its keys, their recovery phrase, and secrets given as arguments.

Private keys are read and written here and nowhere else on a volunteer's machine.
"""
