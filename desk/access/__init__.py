"""Access to pages: one-time keys, sessions, and what every request has to pass.

Nothing here knows what a page shows.
"""
