"""The pocket model: a base model of 1.5 million parameters and the data to fine-tune it on."""

from pathlib import Path

MODEL_DIR = Path(__file__).parent / "model"
POCKET = "pocket"  # what --model and --data are given to mean it
