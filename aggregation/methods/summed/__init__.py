"""Methods whose aggregate is a function of the volunteers' sum: they work under masks.

One method a file, each a SummedMethod of base.py; none of them ever sees a single update.
"""
