"""Answers of one model under several adapters: requests, engines, a chat as a machine.

No sockets and no terminal; the engines are the only threads here.
"""
