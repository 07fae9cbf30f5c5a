"""Release: which of the accepted versions are given out, by rule and by a person's word.

Rounds go on from the newest version whatever stands here; volunteers hold all of them.
"""
