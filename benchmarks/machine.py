"""What was measured on and with: without it a figure means nothing."""

from __future__ import annotations

import datetime
import os
import platform
import re
from importlib.metadata import version

from compilers.hardware import fingerprint

PACKAGES = ("forgeway", "onnxruntime", "openvino", "nncf", "numpy", "uvicorn", "uvloop", "httptools")


def facts() -> dict[str, str]:
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        **{f"hardware {key}": value for key, value in fingerprint().items()},
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        **{package: version(package) for package in PACKAGES},
    }


def slug(found: dict[str, str]) -> str:
    """The processor and its cores, fit for a file name."""
    text = f"{found['hardware cpu']} {found['hardware cores']} cores"
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
