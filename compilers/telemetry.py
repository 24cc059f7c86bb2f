"""No runtime reports on private models: every tool's telemetry is off before the tool is imported.

ONNX Runtime reads its variable once, at import. `import openvino` sends an event through `openvino_telemetry` as soon
as it loads its converter (which we do not use), so both count as absent; NNCF falls silent likewise.
"""

from __future__ import annotations

import os
import sys


def silence() -> None:
    """Call before importing onnxruntime, openvino or nncf."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    os.environ["DO_NOT_TRACK"] = "1"
    for module in ("openvino_telemetry", "openvino.tools.ovc"):
        sys.modules.setdefault(module, None)  # type: ignore[arg-type]
