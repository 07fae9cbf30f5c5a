"""Files on disk → rows of named columns: finding, unpacking, decoding, parsing.

Nothing here knows what a column means.
"""
