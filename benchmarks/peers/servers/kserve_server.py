"""KServe's own server from its SDK: V2 binary, one worker, no gRPC. It has no batching of its own (an agent beside it
has, in a cluster)."""

from kserve import InferOutput, InferResponse, Model, ModelServer
from kserve.utils.numpy_codec import from_np_dtype
from onnx_models import NAMES, PORT, OnnxModel


class Onnx(Model):
    def __init__(self, name):
        super().__init__(name)
        self.onnx = OnnxModel(name)
        self.ready = True

    def predict(self, payload, headers=None, response_headers=None):
        outputs = []
        feeds = {each.name: each.as_numpy() for each in payload.inputs}
        for name, value in zip(self.onnx.names, self.onnx.run(feeds), strict=True):
            output = InferOutput(name, list(value.shape), from_np_dtype(value.dtype))
            output.set_data_from_numpy(value, binary_data=True)
            outputs.append(output)
        return InferResponse(payload.id or "-", self.name, outputs, use_binary_outputs=payload.use_binary_outputs)


if __name__ == "__main__":
    server = ModelServer(http_port=PORT, enable_grpc=False, enable_latency_logging=False, access_log_format=None)
    server.start([Onnx(name) for name in NAMES])
