"""The models as every server here opens them: ONNX Runtime on CPU, as many threads as cores, its other defaults.

This file and its neighbours run in the environments of the peers: they import ONNX Runtime, numpy and that peer,
nothing of this project. BENCH_MODELS names the manifest (models and threads), BENCH_PORT the port to listen on.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import numpy as np
import onnxruntime

PORT = int(os.environ.get("BENCH_PORT", "0"))
MANIFEST = json.loads(Path(os.environ["BENCH_MODELS"]).read_text())
NAMES = [facts["name"] for facts in MANIFEST["models"]]
MOST_ROWS = 32
"""What a batch may gather where the server gathers."""


class OnnxModel:
    """One session. Packed rows: the raw bytes of every tensor of one row, in the model's order."""

    def __init__(self, name):
        facts = next(facts for facts in MANIFEST["models"] if facts["name"] == name)
        self.name = name
        self.inputs = [(each["name"], np.dtype(each["dtype"]), tuple(each["row"])) for each in facts["inputs"]]
        self.outputs = [(each["name"], np.dtype(each["dtype"]), tuple(each["row"])) for each in facts["outputs"]]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = MANIFEST["threads"]
        self.session = onnxruntime.InferenceSession(facts["path"], options, ["CPUExecutionProvider"])
        self.names = [name for name, _, _ in self.outputs]

    def run(self, feeds):
        """Arrays by input name to arrays in the order of the outputs."""
        return self.session.run(self.names, feeds)

    def run_packed(self, rows):
        """Packed rows in one batch; as many packed rows of outputs."""
        feeds, offset = {}, 0
        for name, dtype, shape in self.inputs:
            count = int(np.prod(shape))
            parts = [np.frombuffer(row, dtype, count, offset).reshape(1, *shape) for row in rows]
            feeds[name] = parts[0] if len(parts) == 1 else np.concatenate(parts)
            offset += count * dtype.itemsize
        outputs = self.run(feeds)
        return [b"".join(output[place].tobytes() for output in outputs) for place in range(len(rows))]
