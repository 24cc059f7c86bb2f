"""Calibration samples read a few rows at a time are the ones that Samples would have selected."""

import numpy as np
import onnx_ir as ir
import pytest

from compilers.calibration.feeds import feeds
from compilers.calibration.spool import SpooledRows, spool
from compilers.samples import Samples, split
from model_store.entities import Signature, TensorSpec
from tests import zoo


def signature(*inputs):
    return Signature(inputs=tuple(TensorSpec(*spec) for spec in inputs), outputs=(TensorSpec("y", "FP32", (-1, 2)),))


CASES = {
    "rows": (signature(("x", "FP32", (-1, 3))), {"x": np.arange(150.0).reshape(50, 3)}),
    "scalars": (signature(("x", "INT64", (-1,))), {"x": np.arange(50)}),
    "fixed-batch": (signature(("x", "FP32", (2, 3))), {"x": np.arange(150.0).reshape(50, 3)}),
    "stacked": (signature(("x", "FP32", (2, 3))), {"x": np.arange(300.0).reshape(50, 2, 3)}),
    "two": (
        signature(("a", "INT32", (-1, 4)), ("b", "FP32", (-1,))),
        {"a": np.arange(160).reshape(40, 4), "b": np.arange(45.0)},
    ),
    "columns-first": (signature(("x", "FP32", (-1, 3))), {"x": np.asfortranarray(np.arange(150.0).reshape(50, 3))}),
    "texts": (signature(("t", "BYTES", (-1,))), {"t": np.array([f"text {n}" for n in range(20)])}),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed], ids=["stored", "compressed"])
def test_the_same_rows_in_the_same_order(case, save, tmp_path):
    told, arrays = CASES[case]
    with (tmp_path / "samples.npz").open("wb") as file:
        save(file, **arrays)
    loaded = Samples.load(tmp_path / "samples.npz", told)
    expected = loaded.select(split(loaded.count).calibration)
    spooled = spool(tmp_path / "samples.npz", told, tmp_path)
    assert spooled.keys() == expected.keys()
    for name, rows in spooled.items():
        assert isinstance(rows, SpooledRows) == (case not in ("texts", "columns-first"))
        assert len(rows) == len(expected[name]) and rows.ndim == expected[name].ndim
        np.testing.assert_array_equal(rows[:], expected[name])
        np.testing.assert_array_equal(rows[3:7], expected[name][3:7])
        assert rows[3:7].dtype == expected[name].dtype


def test_a_model_is_fed_from_them(tmp_path):
    model = ir.from_proto(zoo.mlp())
    x = np.arange(64 * 64, dtype=np.float32).reshape(64, 64)
    spooled = spool(zoo.npz(tmp_path / "s.npz", x=x), signature(("x", "FP32", (-1, 64))), tmp_path)
    runs = list(feeds(model, spooled))
    assert [len(run["x"]) for run in runs] == [8, 8, 3]
    np.testing.assert_array_equal(np.concatenate([run["x"] for run in runs]), x[split(64).calibration])
