"""The exchanges of a round as a stock Flower app: sent to every SuperNode, which runs it."""
