"""nomoat: a community fine-tunes one LoRA adapter together."""

import os

__version__ = "0.1.0"

# Flower reads these when it is imported, so they stand before any import of it. Its telemetry is
# on by default and its update check calls home; a volunteer's machine talks to its coordinator
# only.
os.environ["FLWR_TELEMETRY_ENABLED"] = "0"
os.environ["FLWR_DISABLE_UPDATE_CHECK"] = "1"
