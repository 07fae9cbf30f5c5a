"""A real community of processes on this machine, over TLS: `nomoat try`.

Nothing is simulated here.
"""
