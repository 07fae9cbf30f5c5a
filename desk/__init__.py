"""Pages in a browser, metrics and notices: what a coordinator and a volunteer look at.

It shows what the rooms below have written and gives the orders that their commands give; nothing
is decided here, and no round waits for it.
"""
