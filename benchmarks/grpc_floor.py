"""The floor of gRPC here: grpc.aio that parses a ModelInferRequest, and answers with a ModelInferResponse made once.

`python -m benchmarks.grpc_floor PORT ANSWER.bin`. The same message classes and options as the gateway's, and nothing
behind them.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import grpc.aio
import uvloop

from gateway.grpc.messages import SERVICE, message


async def serve(port: int, answer: Any) -> None:
    async def echo(request: Any, context: Any) -> Any:
        return answer

    handler = grpc.unary_unary_rpc_method_handler(
        echo, message("ModelInferRequest").FromString, message("ModelInferResponse").SerializeToString
    )
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", -1), ("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {"ModelInfer": handler}),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    print("ready", flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    answer = message("ModelInferResponse").FromString(Path(sys.argv[2]).read_bytes())
    uvloop.install()
    asyncio.run(serve(int(sys.argv[1]), answer))
