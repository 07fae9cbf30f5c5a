"""All that coordinator and volunteers must agree on, bit for bit: pure functions and frozen data.

No clock, socket, file, log, torch or Flower; chance and time come in as arguments."""
