"""Volunteers that lie, in simulations: what they train on and what they send in an update's place.

They know the defence and keep to the messages' form; nothing here is part of a deployment.
"""
