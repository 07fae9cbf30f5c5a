"""The volunteer: trains on its own data, decides what may leave the machine."""
