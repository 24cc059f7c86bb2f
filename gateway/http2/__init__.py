"""HTTP/2 (RFC 9113) as a server speaks it: connections, streams, windows, limits. It knows nothing of gRPC.

Of our own because the transport is what a small prediction costs: measured on the same messages, an echo on the `h2`
library takes about as long as one on grpc.aio (benchmarks/README.md). Header compression is the `hpack` library's.
"""
