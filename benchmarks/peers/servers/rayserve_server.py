"""Ray Serve on one node: a replica for each model, batches gathered without waiting, its throughput settings."""

import os
import signal
from pathlib import Path

import ray
from onnx_models import MOST_ROWS, NAMES, PORT, OnnxModel
from ray import serve
from starlette.requests import Request
from starlette.responses import Response


@serve.deployment(num_replicas=1, max_ongoing_requests=100, ray_actor_options={"num_cpus": 0.1})
class Onnx:
    def __init__(self, name):
        self.onnx = OnnxModel(name)

    @serve.batch(max_batch_size=MOST_ROWS, batch_wait_timeout_s=0)
    async def infer(self, rows):
        return self.onnx.run_packed(rows)

    async def __call__(self, request: Request) -> Response:
        return Response(await self.infer(await request.body()), media_type="application/octet-stream")


if __name__ == "__main__":
    here = str(Path(__file__).resolve().parent)
    environment = {"PYTHONPATH": here, "BENCH_MODELS": os.environ["BENCH_MODELS"]}
    ray.init(
        include_dashboard=False,
        log_to_driver=False,
        runtime_env={"env_vars": environment},
        _temp_dir=os.environ["BENCH_TEMP"],
    )
    serve.start(http_options={"host": "127.0.0.1", "port": PORT, "access_log": False})
    for name in NAMES:
        serve.run(Onnx.bind(name), name=name, route_prefix=f"/models/{name}")
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: exit(0))
    signal.pause()
