"""The classification extension: instead of an output's numbers, its largest ones as texts `value:index`.

Triton's form (its common.cc, `TopkClassifications`): a BYTES tensor, per row when the model takes batches, else over
the whole output; values with six digits as C's `%f`. Models here carry no labels, so none follows the index.
"""

from __future__ import annotations

from math import prod

import numpy as np

from gateway.codec.values import join_texts
from gateway.errors import BadRequest
from gateway.tensors import Tensor
from model_store.datatypes import NUMPY

_REFUSED = ("BYTES", "BOOL", "FP16", "BF16")


def refuse_unclassifiable(name: str, datatype: str, count: int) -> None:
    """Raises BadRequest for an output that has no largest values, and for a count that means nothing."""
    if datatype in _REFUSED:
        raise BadRequest(f"class result not available for output '{name}' due to unsupported type '{datatype}'")
    if count < 1:
        raise BadRequest(f"output '{name}': 'classification' must be the number of classes wanted, 1 or more")


def classify(tensor: Tensor, count: int, batched: bool) -> Tensor:
    """The `count` largest values of `tensor`, largest first: BYTES of shape [rows, n] when `batched`, else [n].

    n is `count`, or the number of values there are. Equal values come in the order of their indices, NaN last.
    """
    rows = tensor.shape[0] if batched and tensor.shape else 1
    values = np.frombuffer(tensor.data, NUMPY[tensor.datatype]).reshape(rows, -1 if rows else 0)
    values = values if rows else np.zeros((0, prod(tensor.shape[1:])), values.dtype)
    most = min(count, values.shape[1])
    texts = [text for row in values for text in _texts(row, most)]
    return Tensor("BYTES", (rows, most) if batched and tensor.shape else (most,), join_texts(texts))


def _texts(row: np.ndarray, most: int) -> list[bytes]:
    real = row.dtype.kind == "f"
    keys = np.where(np.isnan(row), -np.inf, row) if real else row
    order = len(row) - 1 - np.argsort(keys[::-1], kind="stable")[::-1]
    form = b"%f:%d" if real else b"%d:%d"
    return [form % (row[index].item(), index) for index in order[:most]]
