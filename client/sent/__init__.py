"""What left this machine, what would leave it: the log, its chain, the preview.

Only records; nothing is sent from here.
"""
