"""A PEFT folder, such as a run leaves and an export makes: the one voice is `community`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from nomoat.aggregation.errors import BadData
from nomoat.aggregation.protocol.adapter import Adapter
from nomoat.lora.export import factors
from nomoat.lora.export.side_by_side import of_factors
from nomoat.lora.model.adapter_folder import CONFIG_FILE, WEIGHTS_FILE, load_folder
from nomoat.serving.sources.source import BASE, COMMUNITY, BaseRef, check_known
from nomoat.storage.tensor_file import TensorFile


@dataclass(frozen=True)
class PeftFolder:
    """One adapter in a folder, on a base that the folder or somebody names."""

    folder: Path
    title: str
    base: BaseRef
    measured: Mapping[str, float] = field(default_factory=dict)
    volunteers: Mapping[str, float] = field(default_factory=dict)

    def voices(self) -> tuple[str, ...]:
        """The base and this adapter."""
        return (BASE, COMMUNITY)

    def exact(self, voice: str) -> str:
        """The voice itself."""
        return check_known(voice, self.voices())

    def load(self, voice: str) -> Adapter:
        """The adapter, of mixed ranks and scales, too; BadData if it is more than plain LoRA."""
        try:
            return load_folder(self.folder)
        except BadData:
            return of_factors(factors.of_folder(self.folder))

    def card(self, voice: str) -> str:
        """The folder's README without its front matter."""
        try:
            text = (self.folder / "README.md").read_text("utf-8")
        except (OSError, UnicodeDecodeError):
            return f"# {self.title}\n"
        if text.startswith("---\n") and "\n---\n" in text[4:]:
            text = text[4:].split("\n---\n", 1)[1].lstrip()
        return text

    def losses(self, voice: str) -> Mapping[str, float]:
        """As the run measured them."""
        return self.measured

    def by_volunteer(self, voice: str) -> Mapping[str, float]:
        """As the run's last round measured them."""
        return self.volunteers


def base_of(folder: Path) -> BaseRef:
    """The base that a PEFT folder names; BadData if it is no adapter's."""
    try:
        named = json.loads((folder / CONFIG_FILE).read_bytes())["base_model_name_or_path"]
    except (OSError, ValueError, KeyError, TypeError):
        raise BadData(
            f"{folder / CONFIG_FILE} names no base model: say which with --base"
        ) from None
    said = TensorFile.open(folder / WEIGHTS_FILE).metadata.get("nomoat_base", "")
    try:
        digest = bytes.fromhex(said)
    except ValueError:
        digest = b""
    return BaseRef(str(named), str(named), digest if len(digest) == 32 else b"")
