"""The subjects as files that every peer opens: the ONNX bytes that are registered with Forgeway, and a manifest."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from benchmarks.models import Subject


def write(subjects: Sequence[Subject], folder: Path) -> Path:
    """Model files and `models.json`; rows are described by the subject's own row. Returns the manifest's path."""
    folder.mkdir(parents=True, exist_ok=True)
    models = []
    for subject in subjects:
        path = folder / f"{subject.name}.onnx"
        path.write_bytes(subject.model)
        outputs = expected(subject)
        models.append(
            {
                "name": subject.name,
                "path": str(path),
                "inputs": [_described(name, value) for name, value in subject.row.items()],
                "outputs": [_described(name, value) for name, value in outputs.items()],
            }
        )
    manifest = folder / "models.json"
    manifest.write_text(json.dumps({"threads": threads(), "models": models}, indent=1))
    return manifest


def expected(subject: Subject) -> dict[str, np.ndarray]:
    """What the bare session answers to the subject's row."""
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = onnxruntime.InferenceSession(subject.model, options, ["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(subject.row)), strict=True))


def threads() -> int:
    return len(os.sched_getaffinity(0))


def _described(name: str, value: np.ndarray) -> dict[str, Any]:
    return {"name": name, "dtype": value.dtype.name, "row": list(value.shape[1:])}
