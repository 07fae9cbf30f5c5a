"""What a community's folder holds: settings, members, versions, certificates, database.

No network and no rounds.
"""
