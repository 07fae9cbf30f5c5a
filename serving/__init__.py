"""Using what a community has made: chat, an API, exports, adapters combined and compared.

Trains nothing and takes part in no round; everything stays on this machine.
"""
