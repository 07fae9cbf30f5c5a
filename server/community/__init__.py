"""A community's folder: settings, members, versions, certificates, database.

No network and no rounds.
"""
