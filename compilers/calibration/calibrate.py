"""One pass over the samples, every statistic.

Tensors are looked at in chunks that fit a budget, so "one pass" is one per chunk: a model whose activations are small
is run over its samples once, a large one a few times, and memory stays where it is. Each chunk costs the nodes that
lead to it again, so a run takes as few samples as make the chunks few: what is kept does not depend on it.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx_ir as ir

from compilers.calibration import Calibration
from compilers.calibration.collectors import GRAM_DEPTH, ProductCollector, TensorCollector, gram_bytes
from compilers.calibration.feeds import ROWS, feeds
from compilers.calibration.observe import BUDGET_BYTES, Observed, chunks
from compilers.calibration.products import Product, View, products
from compilers.calibration.statistics import Statistics, Writer
from compilers.memory import return_large_blocks


def calibrate(
    model: ir.Model,
    calibration: Calibration,
    path: Path,
    *,
    tensors: Collection[str] | None = None,
    grams: bool = False,
    budget_bytes: int = BUDGET_BYTES,
) -> None:
    """Write to `path` what `calibration` makes the model's tensors hold.

    tensors: the float tensors to look at; all of the main graph when None. grams: keep H = X'X of every product among
    them. Raises ValueError when an input has no samples.
    """
    return_large_blocks()
    wanted = [name for name in float_tensors(model) if tensors is None or name in tensors]
    seen_by = _views(products(model), wanted)
    with tempfile.TemporaryDirectory() as folder:
        observed = Observed(ir.to_proto(model), Path(folder))
        writer = Writer(path)
        one = next(feeds(model, calibration, 1))
        sizes = observed.sizes(wanted, one)
        # H, and the rows gathered to be added to it.
        matrices = {name: sum(2 * gram_bytes(view) for view in seen_by.get(name, ())) for name in wanted if grams}

        def together(rows: int) -> int:
            return -(-_bytes(next(feeds(model, calibration, rows))) // max(1, _bytes(one)))

        def parted(rows: int) -> list[list[str]]:
            held = {name: size * together(rows) + matrices.get(name, 0) for name, size in sizes.items()}
            return list(chunks(held, budget_bytes))

        rows = ROWS
        while rows > 1 and (
            max(sizes.values(), default=0) * together(rows) > budget_bytes or len(parted(rows // 2)) < len(parted(rows))
        ):
            rows //= 2
        parts = -(-together(ROWS) // together(rows))
        for chunk in parted(rows):
            runs = observed.runs(chunk, feeds(model, calibration, rows))
            _collect(runs, chunk, seen_by, writer, grams=grams, parts=parts)
        writer.close()


@contextmanager
def calibrated(
    model: ir.Model,
    calibration: Calibration,
    given: Statistics | None,
    *,
    tensors: Collection[str] | None = None,
    grams: bool = False,
) -> Iterator[Statistics]:
    """Statistics of `tensors`: what is `given` of them, and what it lacks looked up now."""
    wanted = [name for name in float_tensors(model) if tensors is None or name in tensors]
    lacking = _lacking(model, wanted, given, grams=grams)
    if given is not None and not lacking:
        yield given
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "statistics.npz"
        calibrate(model, calibration, path, tensors=lacking, grams=grams)
        yield Statistics(path, behind=given)


def float_tensors(model: ir.Model) -> list[str]:
    """Names of the float32 activations of the main graph, in the order in which they are computed."""
    graph = model.graph
    values = itertools.chain(
        (value for value in graph.inputs if value.name not in graph.initializers),
        (value for node in graph if node.op_type != "Constant" for value in node.outputs),
    )
    return [str(value.name) for value in values if value.name and value.dtype == ir.DataType.FLOAT]


def _views(found: Sequence[Product], wanted: Collection[str]) -> dict[str, list[View]]:
    """Tensor -> the distinct ways products see it."""
    views: dict[str, dict[str, View]] = {}
    for product in found:
        if product.view.tensor in wanted:
            views.setdefault(product.view.tensor, {})[product.view.key] = product.view
    return {tensor: list(keyed.values()) for tensor, keyed in views.items()}


def _lacking(model: ir.Model, wanted: Sequence[str], given: Statistics | None, *, grams: bool) -> set[str]:
    if given is None:
        return set(wanted)
    lacking = {name for name in wanted if name not in given.tensors}
    for tensor, views in _views(products(model), wanted).items():
        deep = [view for view in views if grams and view.depth <= GRAM_DEPTH]
        if any(given.product(view) is None for view in views) or not all(given.has_gram(view) for view in deep):
            lacking.add(tensor)
    return lacking


def _bytes(inputs: Mapping[str, np.ndarray]) -> int:
    return sum(array.nbytes for array in inputs.values())


def _collect(
    runs: Iterator[dict[str, np.ndarray]],
    chunk: Sequence[str],
    seen_by: Mapping[str, Sequence[View]],
    writer: Writer,
    *,
    grams: bool,
    parts: int,
) -> None:
    """parts: so many runs hold what one of ROWS samples would."""
    tensors = {name: TensorCollector(parts) for name in chunk}
    seen = {name: [ProductCollector(view, gram=grams) for view in seen_by.get(name, ())] for name in chunk}
    for run in runs:
        for name, array in run.items():
            tensors[name].add(array)
            for product in seen[name]:
                product.add(array)
        run.clear()  # before the next run answers
    for name, collected in tensors.items():
        writer.add_tensor(name, collected)
        for product in seen[name]:
            product.close()
            writer.add_product(product)
