"""Several gateway processes on one port: the primary, which owns what there is once, and fronts beside it.

One event loop feeds about two cores of runners with tiny models, and fewer when bodies are large JSON. On hosts with
more cores than that, `--gateways N` starts N-1 *fronts*: processes that accept requests on the same ports, decode,
batch and hand their batches to the same runners over channels of their own. The primary is what a single gateway is;
it also starts and watches the fronts, adds up everybody's counts, and carries what must hold everywhere to all.
"""
