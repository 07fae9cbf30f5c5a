"""One language model and its adapter on one machine."""
