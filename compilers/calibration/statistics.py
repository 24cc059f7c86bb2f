"""The answer of a calibration as one file: written a chunk at a time, read only as far as it is asked for."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from compilers.calibration.collectors import ProductCollector, TensorCollector
from compilers.calibration.products import View
from compilers.calibration.ranges import TensorStatistics


@dataclass(frozen=True, slots=True)
class ProductStatistics:
    """Over the rows X [n, K] a product saw. low, high: [C] by channel; mean: [groups, K]."""

    rows: int
    low: np.ndarray
    high: np.ndarray
    mean: np.ndarray

    @property
    def absmax(self) -> np.ndarray:
        """The largest absolute value of each channel [C]."""
        largest: np.ndarray = np.maximum(np.abs(self.low), np.abs(self.high))
        return largest


class Writer:
    """Writes statistics; nothing of a chunk stays in memory once it is written, but for the histograms."""

    def __init__(self, path: Path) -> None:
        self._file = zipfile.ZipFile(path, "w", zipfile.ZIP_STORED)
        self._tensors: dict[str, TensorStatistics] = {}
        self._products: list[str] = []

    def add_tensor(self, name: str, collected: TensorCollector) -> None:
        seen = collected.seen()
        if seen is not None:
            self._tensors[name] = seen

    def add_product(self, collected: ProductCollector) -> None:
        if collected.sum is None or collected.low is None or collected.high is None:
            return
        stem = f"product.{len(self._products)}"
        self._products.append(collected.view.key)
        self._write(f"{stem}.rows", np.int64(collected.rows))
        self._write(f"{stem}.low", collected.low)
        self._write(f"{stem}.high", collected.high)
        self._write(f"{stem}.mean", collected.sum / max(1, collected.rows))
        if collected.gram is not None:
            self._write(f"{stem}.gram", collected.gram)

    def close(self) -> None:
        seen = list(self._tensors.values())
        figures = [(each.low, each.high, each.mean_low, each.mean_high, each.reach) for each in seen]
        self._write("tensors", np.array(list(self._tensors), np.str_))
        self._write("figures", np.array(figures, np.float64).reshape(-1, 5))
        self._write("counts", np.array([each.counts for each in seen], np.int64).reshape(len(seen), -1))
        self._write("products", np.array(self._products, np.str_))
        self._file.close()

    def _write(self, member: str, array: np.ndarray | np.generic) -> None:
        with self._file.open(member + ".npy", "w", force_zip64=True) as stream:
            np.lib.format.write_array(stream, np.asarray(array), allow_pickle=False)


class Statistics:
    """What a Writer wrote; `behind`: where to look for what it has not. Gram matrices are read when asked for."""

    def __init__(self, path: Path, behind: Statistics | None = None) -> None:
        self._file = np.load(path, allow_pickle=False)
        self._behind = behind
        self._places = {str(key): index for index, key in enumerate(self._file["products"])}

    @cached_property
    def tensors(self) -> Mapping[str, TensorStatistics]:
        counts = self._file["counts"]
        own = {
            str(name): TensorStatistics(low, high, mean_low, mean_high, reach, counts[index])
            for index, (name, (low, high, mean_low, mean_high, reach)) in enumerate(
                zip(self._file["tensors"], self._file["figures"].tolist(), strict=True)
            )
        }
        return own if self._behind is None else {**self._behind.tensors, **own}

    def product(self, view: View) -> ProductStatistics | None:
        """None where the product was not observed."""
        if view.key not in self._places:
            return None if self._behind is None else self._behind.product(view)
        stem = f"product.{self._places[view.key]}"
        return ProductStatistics(
            int(self._file[f"{stem}.rows"]), *(self._file[f"{stem}.{part}"] for part in ("low", "high", "mean"))
        )

    def gram(self, view: View) -> np.ndarray | None:
        """H = sum of X'X, float32 [groups, K, K]; None where it was not asked for or the product is too deep."""
        if self._member(view) not in self._file.files:
            return None if self._behind is None else self._behind.gram(view)
        matrix: np.ndarray = self._file[self._member(view)]
        return matrix

    def has_gram(self, view: View) -> bool:
        here = self._member(view) in self._file.files
        return here or (self._behind is not None and self._behind.has_gram(view))

    def _member(self, view: View) -> str:
        return f"product.{self._places.get(view.key, -1)}.gram"
