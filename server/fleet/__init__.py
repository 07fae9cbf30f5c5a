"""The fleet as the coordinator sees it: Flower's state of nodes and messages, and Grids over it.

Private Flower interfaces are imported by flower_server.py alone; HTTP is server/port's.
"""
