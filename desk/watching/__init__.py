"""News for programs: a log of events, metrics, and notices to addresses that asked.

Told in passing by the rounds' own thread, which waits for none of it.
"""
