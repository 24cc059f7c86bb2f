"""LitServe: a worker process for each model, its fast queue (ZeroMQ), batches gathered for a millisecond (with a
timeout of 0 idle workers spin)."""

from typing import Annotated

import litserve
from fastapi import Body, Response
from onnx_models import MOST_ROWS, NAMES, PORT, OnnxModel


class Api(litserve.LitAPI):
    def __init__(self, model):
        super().__init__(max_batch_size=MOST_ROWS, batch_timeout=0.001, api_path=f"/models/{model}")
        self.model_name = model

    def setup(self, device):
        self.onnx = OnnxModel(self.model_name)

    def decode_request(self, request: Annotated[bytes, Body(media_type="application/octet-stream")]):
        return request

    def batch(self, inputs):
        return inputs

    def predict(self, rows):
        return self.onnx.run_packed(rows)

    def unbatch(self, output):
        return output

    def encode_response(self, output) -> Response:
        return Response(output, media_type="application/octet-stream")


if __name__ == "__main__":
    server = litserve.LitServer([Api(name) for name in NAMES], accelerator="cpu", fast_queue=True)
    server.run(host="127.0.0.1", port=PORT, generate_client_file=False, log_level="warning", access_log=False)
