"""One volunteer trains or evaluates one adapter over one frozen base.

No processes and no files of the federation; interruptions arrive as arguments.
"""
