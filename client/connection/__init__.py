"""The line to a coordinator: Flower client, message loop, HTTPS, its web interface.

Bytes in and out; no message is acted on here.
"""
