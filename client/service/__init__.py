"""Taking part whenever the owner is logged in: units of systemd, launchd and Windows.

Texts and their installation.
"""
