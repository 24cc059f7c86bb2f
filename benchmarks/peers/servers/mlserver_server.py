"""MLServer: a custom runtime, adaptive batching, the models in the server's own process."""

import base64
import os

from mlserver import MLModel, ModelSettings, Settings
from mlserver.server import MLServer
from mlserver.types import InferenceResponse, ResponseOutput
from onnx_models import MOST_ROWS, NAMES, PORT, OnnxModel


class Onnx(MLModel):
    async def load(self):
        self.onnx = OnnxModel(self.name)
        return True

    async def predict(self, payload):
        rows = [base64.b64decode(row) for row in payload.inputs[0].data]
        packed = [base64.b64encode(row).decode() for row in self.onnx.run_packed(rows)]
        output = ResponseOutput(
            name="packed", shape=[len(packed)], datatype="BYTES", data=packed, parameters={"content_type": "base64"}
        )
        return InferenceResponse(model_name=self.name, outputs=[output])


async def main():
    settings = Settings(
        host="127.0.0.1", http_port=PORT, grpc_port=int(os.environ["BENCH_SECOND_PORT"]), metrics_endpoint=None,
        parallel_workers=0, debug=False, gzip_enabled=False,
    )  # fmt: skip
    server = MLServer(settings)
    models = [
        ModelSettings(name=name, implementation=Onnx, max_batch_size=MOST_ROWS, max_batch_time=0.001) for name in NAMES
    ]
    await server.start(models)


if __name__ == "__main__":
    import asyncio

    asyncio.run(main())
