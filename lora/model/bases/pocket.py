"""The pocket model, a base by name: 1.5 million parameters that come with this package.

Made by simulations/pocket/pretrain.py; its card, in the folder, says of what.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

NAME: Final = "pocket"
FOLDER: Final = Path(__file__).parent / "pocket_model"
EARLIER_NAME: Final = "nomoat pocket model"  # as runs and their adapters call it
