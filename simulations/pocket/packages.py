"""The third-party docstrings that the pocket model is pretrained on, standard library removed."""

import importlib.metadata
import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from nomoat.simulations.pocket.corpus import SKIPPED, Docstring, file_docstrings, module_name

# Folders that hold other projects' code: copies, backports, forks.
NOT_THEIR_OWN = frozenset(
    {
        "_distutils",
        "_third_party",
        "_vendored",
        "backports",
        "extern",
        "externals",
        "third_party",
        "vendor",
        "vendored",
    }
)
PERMISSIVE = re.compile(r"\b(0?BSD|MIT|Apache|PSF|Python Software Foundation)\b", re.IGNORECASE)
COPYLEFT = re.compile(r"\b([AL]?GPL|GNU|MPL|Mozilla|EPL|EUPL|CDDL)", re.IGNORECASE)

# A module shares text with the standard library by chance up to here; beyond, it is a copy of it.
COPY_SHARE = 0.25
COPY_AT_LEAST = 3


class PackageUnusable(ValueError):
    """A listed package is missing, has another version, or is not plainly permissive."""


@dataclass(frozen=True)
class Package:
    """One installed distribution, what its metadata say of it, and its usable docstrings."""

    name: str
    version: str
    licence: str
    docstrings: tuple[Docstring, ...]


def read_list(path: Path) -> tuple[str, ...]:
    """The requirements in a file, one `name` or `name==version` a line, # for comments."""
    lines = (line.split("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines())
    return tuple(line for line in lines if line)


def collect(
    requirements: Sequence[str], known: Iterable[str], search: Sequence[str] | None = None
) -> tuple[Package, ...]:
    """The packages with their docstrings, less all that `known` or an earlier package says.

    known: summaries that must not be learnt, the standard library's. search: the folders to find
    distributions in, by default sys.path. Summaries are compared folded and without case.
    Raises PackageUnusable.
    """
    forbidden = frozenset(_key(summary) for summary in known)
    seen = set(forbidden)
    packages = []
    for requirement in requirements:
        package, modules = _read(requirement, sys.path if search is None else search)
        own = (item for module in modules if not _is_copy(module, forbidden) for item in module)
        new: dict[str, Docstring] = {}
        for item in own:
            if _key(item.summary) not in seen:
                new.setdefault(_key(item.summary), item)
        seen.update(new)
        packages.append(replace(package, docstrings=tuple(new.values())))
    return tuple(packages)


def licence_of(metadata: importlib.metadata.PackageMetadata) -> str:
    """The licence as the package states it: its SPDX expression, else classifiers, else a line."""
    expressions = metadata.get_all("License-Expression")
    if expressions:
        return str(expressions[0])
    classifiers = metadata.get_all("Classifier") or []
    names = [line.split("::")[-1].strip() for line in classifiers if line.startswith("License ::")]
    stated = [name for name in names if PERMISSIVE.search(name) or COPYLEFT.search(name)]
    free_text = str((metadata.get_all("License") or [""])[0])
    return " AND ".join(stated) or free_text.split("\n", maxsplit=1)[0].strip()


def _read(requirement: str, search: Sequence[str]) -> tuple[Package, list[list[Docstring]]]:
    """The package, still without docstrings, and the docstrings of each of its modules."""
    name, _, version = requirement.partition("==")
    found = list(importlib.metadata.distributions(name=name, path=list(search)))
    if not found:
        raise PackageUnusable(f"{name} is not installed")
    distribution = found[0]
    if version and distribution.version != version:
        raise PackageUnusable(f"{name} is {distribution.version}, the list asks for {version}")
    licence = licence_of(distribution.metadata)
    if COPYLEFT.search(licence) or not PERMISSIVE.search(licence):
        raise PackageUnusable(f"{name} states the licence '{licence}', not BSD, MIT, Apache or PSF")
    by_module: dict[str, list[Docstring]] = defaultdict(list)
    for item in _docstrings(distribution):
        by_module[item.module].append(item)
    return Package(name, distribution.version, licence, ()), list(by_module.values())


def _docstrings(distribution: importlib.metadata.Distribution) -> Iterator[Docstring]:
    skip = SKIPPED | NOT_THEIR_OWN
    for file in sorted(distribution.files or (), key=str):
        relative = Path(str(file))
        usual = relative.suffix == ".py" and ".." not in relative.parts
        if usual and not skip.intersection((*relative.parts[:-1], relative.stem)):
            yield from file_docstrings(Path(str(file.locate())), module_name(relative))


def _is_copy(module: Sequence[Docstring], forbidden: frozenset[str]) -> bool:
    """True if so much of the module is the standard library's text that it must be a copy."""
    shared = sum(_key(item.summary) in forbidden for item in module)
    return shared >= COPY_AT_LEAST and shared >= COPY_SHARE * len(module)


def _key(summary: str) -> str:
    return " ".join(summary.split()).casefold()
