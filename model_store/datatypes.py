"""The datatypes of the V2 protocol: their numpy form, size and ONNX element type (PROTOCOL: V2 datatypes + BF16).

BF16 has no numpy dtype of its own: it travels as `ml_dtypes.bfloat16`, imported only when met.
"""

from __future__ import annotations

import numpy as np

NUMPY: dict[str, np.dtype] = {
    "BOOL": np.dtype("?"),
    "UINT8": np.dtype("u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
    "BYTES": np.dtype("O"),
}

ONNX: dict[int, str] = {
    1: "FP32", 2: "UINT8", 3: "INT8", 4: "UINT16", 5: "INT16", 6: "INT32", 7: "INT64", 8: "BYTES", 9: "BOOL",
    10: "FP16", 11: "FP64", 12: "UINT32", 13: "UINT64", 16: "BF16",
}  # fmt: skip
"""`onnx.TensorProto.DataType` -> V2 name; other element types cannot be inputs or outputs of a served model."""


def numpy_dtype(datatype: str) -> np.dtype:
    """The numpy dtype that carries `datatype`. Raises KeyError for a name that is not V2."""
    if datatype == "BF16":
        import ml_dtypes

        brain: np.dtype = np.dtype(ml_dtypes.bfloat16)
        return brain
    return NUMPY[datatype]


def v2_name(dtype: np.dtype) -> str:
    """The V2 name of a numpy dtype; text and byte strings are BYTES. Raises KeyError when there is none."""
    if dtype.kind in "OSU":
        return "BYTES"
    if dtype.name == "bfloat16":
        return "BF16"
    return _BY_DTYPE[dtype.newbyteorder("<") if dtype.itemsize > 1 else dtype]


_BY_DTYPE = {dtype: name for name, dtype in NUMPY.items() if name != "BYTES"}
