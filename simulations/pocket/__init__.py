"""The pocket model's making, and the data to fine-tune it on: documentation of Python itself."""

from typing import Final

from nomoat.lora.model.bases import pocket

MODEL_DIR: Final = pocket.FOLDER
POCKET: Final = pocket.NAME  # what --model and --data are given to mean it
