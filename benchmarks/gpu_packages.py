"""What the core trainer needs beside torch and transformers: found, fetched, installed apart.

Nothing that is there is replaced. Imports the standard library only.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

__all__ = ["PACKAGES", "Package", "install", "lacking", "pack"]

CONSTRAINTS = Path(__file__).resolve().parent.parent / "constraints.txt"
PLATFORMS = ("manylinux_2_28", "manylinux_2_27", "manylinux_2_17", "manylinux2014", "manylinux1")


@dataclass(frozen=True)
class Package:
    """A distribution, the module by which it is found, the least version, whether its wheel may
    be carried along, what it is needed for (None: everything), and the distribution whose carried
    version needs the carried version of this one."""

    name: str
    module: str
    least: tuple[int, ...] = ()
    is_carried: bool = True
    only_for: str | None = None
    goes_with: str | None = None


PACKAGES = (
    Package("torch", "torch", (2, 8), is_carried=False),
    Package("transformers", "transformers", (5, 0), is_carried=False),
    Package("numpy", "numpy", (2, 0), is_carried=False),
    Package("safetensors", "safetensors", (0, 5)),
    Package("pyarrow", "pyarrow", (19,)),
    Package("pydantic", "pydantic", (2, 10)),
    Package("pydantic_core", "pydantic_core", goes_with="pydantic"),
    Package("annotated-types", "annotated_types"),
    Package("typing-inspection", "typing_inspection"),
    Package("typing_extensions", "typing_extensions", goes_with="pydantic"),
    Package("omegaconf", "omegaconf", (2, 3)),
    Package("PyYAML", "yaml", (5, 1)),
    Package("peft", "peft", (0, 17), only_for="LoRA"),
    Package("accelerate", "accelerate", only_for="LoRA"),
    Package("psutil", "psutil", only_for="LoRA"),
)


def lacking(packages: Iterable[Package] = PACKAGES) -> list[Package]:
    """The packages that are absent or too old, and those that must go with one of them."""
    missing = [package for package in packages if not _is_there(package)]
    names = {package.name for package in missing}
    return missing + [p for p in packages if p.goes_with in names and p not in missing]


def _is_there(package: Package) -> bool:
    if importlib.util.find_spec(package.module) is None:
        return False
    if not package.least:
        return True
    try:
        version = importlib.metadata.version(package.name)
    except importlib.metadata.PackageNotFoundError:
        return True  # vendored; its import will show
    numbers = re.match(r"[\d.]+", version)
    return tuple(map(int, numbers[0].strip(".").split("."))) >= package.least if numbers else True


def pack(folder: Path, python_version: str, only: list[str] | None) -> None:
    """Download wheels for Linux on x86-64, in the versions of `constraints.txt`.

    Args:
        folder: where they go.
        python_version: of the machine that they are for, such as 3.12.
        only: these distributions; None for all that may be carried.

    Raises:
        SystemExit: one of them is none of ours.
        subprocess.CalledProcessError: pip failed.
    """
    carried = {package.name: package for package in PACKAGES if package.is_carried}
    unknown = [name for name in only or () if name not in carried]
    if unknown:
        raise SystemExit(f"--packages {unknown[0]}: not among {', '.join(carried)}")
    pinned = dict(
        line.split("==") for line in CONSTRAINTS.read_text().split() if line.count("==") == 1
    )
    wanted = [f"{name}=={pinned[name]}" if name in pinned else name for name in only or carried]
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--implementation", "cp", "--python-version", python_version]
    for platform in PLATFORMS:
        command += ["--platform", f"{platform}_x86_64"]
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run([*command, "--dest", str(folder), *wanted], check=True)


def install(missing: Iterable[Package], wheels: Path, target: Path) -> list[Package]:
    """Install carried wheels into a folder of their own.

    Returns:
        what is still missing: no wheel of it is there, or pip refused it.
    """
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"]
    command += ["--disable-pip-version-check", "--no-compile", "--find-links", str(wheels)]
    command += ["--target", str(target)]
    left = []
    for package in missing:
        if package.is_carried:
            done = subprocess.run([*command, package.name], capture_output=True, check=False)
            if not done.returncode:
                continue
        if package.goes_with is None or not _is_there(package):
            left.append(package)
    return left
