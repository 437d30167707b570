"""What a result was produced with: the code, the libraries, the kind of machine."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path
from typing import Any

import numpy as np

from tfbinreg import _compat

ROOT = Path(__file__).parents[2]


def commit() -> str:
    """Of the code, with "+" if it was changed since; "unknown" outside a repository."""
    try:
        head = _git("rev-parse", "--short=12", "HEAD")
        changed = _git("status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head + ("+" if changed else "")


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def versions() -> dict[str, str]:
    """Of Python and the libraries that decide what a training comes to."""
    return {
        "python": platform.python_version(),
        "numpy": np.__version__,
        **_compat.versions(),
    }


def machine() -> dict[str, Any]:
    """The processor's kind: sums are rounded in another order on another one."""
    return {"system": platform.system(), "processor": _processor()}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{platform.machine()} {names[0]}" if names else platform.machine()
