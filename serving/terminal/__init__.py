"""A chat in a terminal, and the ratings it keeps at home.

Everything that decides is in lora/inference/chat_session.py.
"""
