"""What coordinator and volunteers must agree on, bit for bit: pure functions and frozen data."""
