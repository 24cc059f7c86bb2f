"""The gRPC face of the gateway: the Open Inference Protocol and grpc.health.v1 beside HTTP, on the same engine."""
