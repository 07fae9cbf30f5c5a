"""Settings from flags, NOMOAT_* variables and a TOML file, in this order, before the defaults.

A root module because both the coordinator's and the volunteer's room need it, and neither may
import the other.
"""

from __future__ import annotations

from pathlib import Path
from types import new_class
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from nomoat.aggregation.errors import UsageError

S = TypeVar("S", bound="FileSettings")


class FileSettings(BaseSettings):
    """Settings whose owner writes them into a TOML file; a subclass names the keys."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags, then NOMOAT_* variables, then the file."""
        del dotenv_settings, file_secret_settings
        file = TomlConfigSettingsSource(settings_cls, settings_cls.model_config.get("toml_file"))
        return init_settings, env_settings, file


def load(kind: type[S], file: Path, **flags: Any) -> S:
    """Settings of this kind; UsageError naming file and key if one cannot be."""
    config = {"model_config": SettingsConfigDict(toml_file=file)}
    from_file = new_class(kind.__name__, (kind,), exec_body=lambda names: names.update(config))
    try:
        settings: S = from_file(**flags)
    except ValidationError as problem:
        raise UsageError(f"{file}: {first_error(problem)}") from None
    except ValueError as problem:  # not TOML at all; the text names line and column
        raise UsageError(f"{file}: {problem}") from None
    return settings


def first_error(problem: ValidationError) -> str:
    """The first thing wrong with settings, as `table.key: what`."""
    error = problem.errors(include_url=False)[0]
    where = ".".join(str(part) for part in error["loc"])
    return f"{where}: {error['msg'].lower().removeprefix('value error, ')}"
