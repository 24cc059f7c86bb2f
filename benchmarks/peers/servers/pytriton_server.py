"""Triton's core (HTTP front end, scheduler, dynamic batcher) with the session in Python: nvidia-pytriton."""

import os

from onnx_models import MOST_ROWS, NAMES, PORT, OnnxModel
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig, TritonSecurityConfig


def infer_with(model):
    @batch
    def infer(**feeds):
        return dict(zip(model.names, model.run(feeds), strict=True))

    return infer


if __name__ == "__main__":
    config = TritonConfig(
        http_address="127.0.0.1", http_port=PORT, allow_grpc=False, allow_metrics=False,
        grpc_port=int(os.environ["BENCH_SECOND_PORT"]),
    )  # fmt: skip
    # The token opens the statistics that perf_analyzer asks for.
    with Triton(config=config, security_config=TritonSecurityConfig(access_token="bench")) as triton:
        for name in NAMES:
            model = OnnxModel(name)
            triton.bind(
                model_name=name,
                infer_func=infer_with(model),
                inputs=[Tensor(name=each, dtype=dtype.type, shape=shape) for each, dtype, shape in model.inputs],
                outputs=[Tensor(name=each, dtype=dtype.type, shape=shape) for each, dtype, shape in model.outputs],
                config=ModelConfig(max_batch_size=MOST_ROWS, batcher=DynamicBatcher(max_queue_delay_microseconds=0)),
            )
        triton.serve()
