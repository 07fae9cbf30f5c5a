"""The volunteer's identity: its keys and their recovery phrase.

Private keys are read and written here and nowhere else on a volunteer's machine.
"""
