"""Side by side with other people's servers: `python -m benchmarks.peers`, or `make bench-peers`."""
