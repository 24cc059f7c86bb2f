"""The key of a step: the sha256 of everything that can change its answer.

Its name and parameters, the digests of its inputs, the versions of the tools, the sources that decide it, and, where
kernels do, the hardware. Equal keys mean equal answers: that is what lets a crash resume and a twin reuse.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from compilers import hardware
from model_store.entities import Digest

TOOLS = (
    "forgeway", "numpy", "onnx", "onnx-ir", "onnxslim", "onnxscript", "onnxruntime", "onnxruntime-gpu", "openvino",
    "nncf",
)  # fmt: skip

SOURCES: dict[str, tuple[str, ...]] = {
    "probe": ("steps", "proving/probing", "synthetic", "samples", "proving/compare", "targets/*"),
    "calibrate": ("steps", "samples", "calibration/*", "passes/int8_static", "passes/kinds", "passes/shapes"),
    "transform": ("steps", "samples", "anatomy", "structure", "tensor_shapes", "passes/regions"),  # passes: params
    "build": ("steps", "targets/*"),
    "outputs": ("steps", "feed", "samples", "synthetic", "proving/recording", "targets/*"),
    "agree": (
        "steps", "feed", "samples", "synthetic", "proving/recording", "proving/compare", "proving/accuracy",
        "intervals", "targets/*",
    ),
    "sensitivity": ("steps", "samples", "search/sensitivity", "targets/*"),
    "measure": (
        "steps", "feed", "samples", "synthetic", "timing/measure", "timing/stopwatch", "intervals", "targets/*",
    ),
    "plan": (
        "steps", "feed", "samples", "synthetic", "timing/measure", "timing/stopwatch", "intervals", "timing/plan",
        "timing/curves", "targets/*",
    ),
}  # fmt: skip
"""Step -> the modules that decide its answer: editing one makes the step run again."""


@dataclass(frozen=True, slots=True)
class Step:
    """What to do (a name in compilers.steps), with what parameters, on which blobs."""

    name: str
    params: Mapping[str, Any]
    inputs: Mapping[str, Digest]

    def key(self) -> str:
        facts = {
            "step": self.name,
            "params": self.params,
            "inputs": self.inputs,
            "tools": tool_versions(),
            "sources": _sources(self.name),
            "hardware": {} if self.name in ("calibrate", "transform") else hardware.fingerprint(),
        }
        return hashlib.sha256(msgspec.json.encode(facts, order="deterministic")).hexdigest()


@functools.cache
def tool_versions() -> dict[str, str]:
    """Installed versions of what builds, changes and runs models; nothing is imported to find out."""
    versions = {}
    for name in TOOLS:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


@functools.cache
def _sources(step: str) -> str:
    folder, digest = Path(__file__).parent, hashlib.sha256()
    for pattern in SOURCES[step]:
        for source in sorted(folder.glob(f"{pattern}.py")):
            digest.update(source.read_bytes())
    return digest.hexdigest()
