"""One adapter for other programs: its factors, merged weights, GGUF, MLX, a card for the hub.

Nothing here trains, sends or asks anyone; what a program computes afterwards is compared here.
"""
