"""What pip installs: every module, page and table of the rooms, and nothing of the workshop."""

from __future__ import annotations

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROOMS = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]
BUILD = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"


def test_a_wheel_holds_every_file_of_the_rooms_and_no_other(tmp_path: Path) -> None:
    tree, out = tmp_path / "tree", tmp_path / "wheel"
    tree.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", *ROOMS["package-dir"].values()):
        (tree / name).symlink_to(ROOT / name)
    command = [sys.executable, "-c", BUILD, str(out)]
    done = subprocess.run(command, cwd=tree, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = out.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    installed = {name for name in names if ".dist-info/" not in name}
    expected = {
        (Path(package.replace(".", "/")) / file.relative_to(ROOT / folder)).as_posix()
        for package, folder in ROOMS["package-dir"].items()
        for file in (ROOT / folder).rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    assert installed == expected
