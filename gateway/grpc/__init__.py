"""The gRPC face of the gateway: the Open Inference Protocol and grpc.health.v1 beside HTTP, on the same engine."""

import os

os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # its own lines on stderr would not be ours (logs.py)
