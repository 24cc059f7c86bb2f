"""A V2 `infer` body that is nothing but one tensor (`Inference-Header-Content-Length: 0`, PROTOCOL section 3).

Name, type and shape follow from the model: it must have one input with at most one size left open beside its batch
axis, which is 1. Texts of refusals are those of Triton's core (`infer_request.cc`, Normalize).
"""

from __future__ import annotations

from math import prod

from gateway.codec.v2_request import Request
from gateway.routing.ranking import VersionRoute
from gateway.running.wire import ITEM_BYTES
from gateway.tensors import Tensor, wrong
from model_store.entities import TensorSpec


def decode(body: bytes, route: VersionRoute) -> Request:
    """Every output is answered, as binary. Raises BadRequest."""
    inputs = route.signature.inputs
    if len(inputs) != 1:
        raise wrong(
            "",
            f"Raw request must only have 1 input (found 1) to be deduced but got {len(inputs)} inputs in "
            f"'{route.name}' model configuration",
        )
    spec = inputs[0]
    batched = route.max_batch_size > 0
    sizes = spec.shape[1:] if batched else spec.shape
    if sizes.count(-1) > 1:
        raise wrong(
            "",
            f"The shape of the raw input '{spec.name}' can not be deduced because there are more than one "
            "variable-sized dimension",
        )
    if spec.datatype == "BYTES":
        if prod(sizes) != 1:
            raise wrong("", f"For BYTE datatype raw input '{spec.name}', the model must have input shape [1]")
        body = len(body).to_bytes(4, "little") + body
    else:
        sizes = _deduced(spec, sizes, len(body))
    shape = (1, *sizes) if batched else sizes
    return Request("", [(spec.name, Tensor(spec.datatype, shape, body))], None, True)


def _deduced(spec: TensorSpec, sizes: tuple[int, ...], nbytes: int) -> tuple[int, ...]:
    """The sizes with the open one filled in so that they take `nbytes` bytes. Raises BadRequest."""
    if -1 not in sizes:
        return sizes
    rest = prod(size for size in sizes if size >= 0) * ITEM_BYTES[spec.datatype]
    if rest == 0 or nbytes % rest:
        raise wrong(
            "",
            f"The shape of the raw input '{spec.name}' can not be deduced because its {nbytes} bytes are no multiple "
            f"of {rest}, the size of its fixed dimensions",
        )
    return tuple(nbytes // rest if size < 0 else size for size in sizes)
