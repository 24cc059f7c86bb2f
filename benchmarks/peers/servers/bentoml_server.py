"""BentoML: one service, an adaptively batched method for each model; started by `bentoml serve`."""

import base64

import bentoml
from onnx_models import MOST_ROWS, NAMES, OnnxModel


def method(name):
    def infer(self, rows: list[str]) -> list[str]:
        packed = self.models[name].run_packed([base64.b64decode(row) for row in rows])
        return [base64.b64encode(row).decode() for row in packed]

    infer.__name__ = name
    # Past max_latency_ms it refuses: so long that it never does here.
    return bentoml.api(infer, route=f"/models/{name}", batchable=True, max_batch_size=MOST_ROWS, max_latency_ms=60_000)


def load(self):
    self.models = {name: OnnxModel(name) for name in NAMES}


Service = bentoml.service(workers=1, traffic={"timeout": 60})(
    type("Service", (), {"__init__": load, **{name: method(name) for name in NAMES}})
)
