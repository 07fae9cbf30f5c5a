"""One volunteer at work: the parts of the other rooms put together, run and told about.

Assembly only; what each part decides stands in its own room.
"""
