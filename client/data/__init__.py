"""The owner's rows: which are trained on, which are held out, which look secret.

Nothing here leaves the machine.
"""
