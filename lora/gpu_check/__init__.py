"""One table of what this machine's GPU does with us: rows, each in a process with a time limit.

No command and no policy: what is tried is lora's own, and whole programs as a user starts them.
"""
