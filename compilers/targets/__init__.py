"""Where variants run: one runtime a file, behind two small protocols and a table of import strings.

The table is the registry: nothing heavy is imported until a target is chosen, and a name that is not there is
answered with the nearest one. `requires` says which packages a target needs, so that an installation can say what it
can build for without importing any runtime.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

Tensors = dict[str, np.ndarray]


class UnknownTarget(LookupError):
    """No target of that name; the message holds the nearest one."""


class TargetFailed(RuntimeError):
    """A runtime refused to build, open or run a model. The one error that crosses from a runtime to us."""


@dataclass(frozen=True, slots=True)
class Built:
    """Files of an artifact as they lie in the work folder (artifact file name -> path), and the options to open it."""

    files: Mapping[str, Path]
    options: Mapping[str, Any]


class Session(Protocol):
    """An opened artifact. `run` takes every input by name (C-contiguous arrays) and returns every output by name.

    As many threads may call `run` at the same time as there are instances; one more waits.
    """

    def run(self, inputs: Tensors) -> Tensors: ...

    def close(self) -> None: ...


class Target(Protocol):
    """One runtime on one device. Every failure is a TargetFailed that says what the runtime said."""

    name: str

    def fingerprint(self) -> dict[str, str]:
        """Runtime version and the hardware facts that change what it builds or how fast it runs."""
        ...

    def build(self, model: Path, workdir: Path, options: Mapping[str, Any]) -> Built:
        """Build `model` (a self-contained ONNX file) into `workdir`."""
        ...

    def open(self, files: Mapping[str, Path], options: Mapping[str, Any], threads: int, instances: int = 1) -> Session:
        """Open what `build` made, for `instances` runs at a time of `threads` threads each.

        `files` maps artifact file names to paths of any name (blobs have no suffix).
        """
        ...


@dataclass(frozen=True, slots=True)
class TargetEntry:
    name: str
    device: str
    implementation: str
    requires: tuple[str, ...]
    precisions: tuple[str, ...] = field(default=("f32",))


TARGETS: dict[str, TargetEntry] = {
    entry.name: entry
    for entry in (
        TargetEntry("ort-cpu", "cpu", "compilers.targets.ort:OrtCpu", ("onnxruntime",), ("f32", "int8")),
        TargetEntry(
            "openvino-cpu", "cpu", "compilers.targets.openvino:OpenVinoCpu", ("openvino",), ("f32", "bf16", "int8")
        ),
    )
}


def entry(name: str) -> TargetEntry:
    """The table's row. Raises UnknownTarget with the nearest name."""
    if name not in TARGETS:
        close = difflib.get_close_matches(name, TARGETS, n=1)
        raise UnknownTarget(
            f"no target {name!r}; " + (f"did you mean {close[0]!r}?" if close else f"there are {', '.join(TARGETS)}")
        )
    return TARGETS[name]


def load_target(name: str) -> Target:
    """Import and construct a target. Raises UnknownTarget, or ImportError when its runtime is not installed."""
    module, _, attribute = entry(name).implementation.partition(":")
    target: Target = getattr(importlib.import_module(module), attribute)()
    return target


def missing_packages(name: str) -> tuple[str, ...]:
    """Packages the target needs and this installation lacks (nothing is imported to find out)."""
    return tuple(package for package in entry(name).requires if importlib.util.find_spec(package) is None)


def available() -> tuple[str, ...]:
    """Names of the targets this installation can build for and run on."""
    return tuple(name for name in TARGETS if not missing_packages(name))
