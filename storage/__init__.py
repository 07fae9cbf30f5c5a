"""Files, whoever owns them: atomic writes, locks, private keys, arrays, settings.

Nothing here knows what a file is about; what is kept in it is decided in the rooms above.
"""
