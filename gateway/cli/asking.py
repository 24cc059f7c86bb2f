"""`predict` and `bench`: commands that ask a model."""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.output import USAGE, Json, Key, Url, document, fail, say, seconds, table
from gateway.cli.registry import Name, client_at

if TYPE_CHECKING:
    import numpy as np

    from gateway.client import Client

Version = Annotated[str | None, typer.Option("--version", help="Version number (default: the champion or newest).")]


def predict(
    name: Name,
    file: Annotated[Path, typer.Argument(metavar="INPUT.npz", help="One array per input, first axis = rows.")],
    output: Annotated[Path | None, typer.Option("--output", help="Write the outputs to this npz.")] = None,
    version: Version = None,
    variant: Annotated[str | None, typer.Option(help="Pin a variant, such as `reference`.")] = None,
    url: Url = None,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Predict, and say which variant answered."""
    import numpy as np

    with client_at(url, key) as client:
        inputs = _chosen(_arrays(file), client.metadata(name, version), file)
        answer = client.predict(name, inputs, version=version, variant=variant)
    if output is not None:
        with output.open("wb") as target:
            np.savez(target, **dict(answer))  # type: ignore[arg-type]
    if as_json:
        document(
            {
                "model": answer.model,
                "version": answer.version,
                "variant": answer.variant,
                "stages": answer.stages,
                "outputs": {
                    label: {"shape": array.shape, "dtype": str(array.dtype), "data": _listed(array)}
                    for label, array in answer.items()
                },
            }
        )
        return
    rows = [
        (label, str(array.dtype), "x".join(map(str, array.shape)), _glimpse(array)) for label, array in answer.items()
    ]
    table(None, ["output", "dtype", "shape", "values"], rows)
    stages = ", ".join(f"{stage} {seconds(took)}" for stage, took in answer.stages.items())
    say(f"{answer.model} version {answer.version} answered with {answer.variant}" + (f" ({stages})" if stages else ""))


def bench(
    name: Name,
    rows: Annotated[str, typer.Option(help="Batch sizes to try.")] = "1,8,32",
    duration: Annotated[float, typer.Option("--seconds", help="Time per batch size.", min=0.2)] = 4.0,
    file: Annotated[Path | None, typer.Option("--input", help="npz to take the rows from (default: made up).")] = None,
    version: Version = None,
    url: Url = None,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Time the routed variant against the reference, in turns, through the gateway.

    The times are those of one caller and hold the cost of this client and of HTTP; `make bench` measures the rest.
    """
    try:
        sizes = [int(part) for part in rows.split(",")]
    except ValueError:
        raise fail(f"--rows takes numbers such as 1,8,32, not {rows!r}", USAGE) from None
    with client_at(url, key) as client:
        metadata = client.metadata(name, version)
        arrays = None if file is None else _chosen(_arrays(file), metadata, file)
        found = [_compare(client, name, version, _batch(metadata, count, arrays), count, duration) for count in sizes]
    if as_json:
        document({"model": name, "seconds": duration, "results": found})
        return
    columns = ["rows", "variant", ">p50", ">p99", ">rows/s", ">reference p50", ">speed-up"]
    keys = ("rows", "variant", "p50_s", "p99_s", "rows_per_s", "reference_p50_s", "speedup")
    shown = [[result[key] for key in keys] for result in found]
    table(
        name,
        columns,
        [[r, v, seconds(a), seconds(b), f"{c:.0f}", seconds(d), f"{e:.2f}x"] for r, v, a, b, c, d, e in shown],
    )


def _compare(
    client: Client, name: str, version: str | None, inputs: dict[str, Any], rows: int, duration: float
) -> dict[str, Any]:
    times: dict[str | None, list[float]] = {None: [], "reference": []}
    answered = ""
    for pinned in times:  # the first call opens connections and warms caches
        client.predict(name, inputs, version=version, variant=pinned)
    end = time.monotonic() + duration
    while not times["reference"] or time.monotonic() < end:
        for pinned, taken in times.items():
            started = time.perf_counter()
            answer = client.predict(name, inputs, version=version, variant=pinned)
            taken.append(time.perf_counter() - started)
            answered = answered if pinned else str(answer.variant)
    p50, p99 = _quantiles(times[None])
    reference, _ = _quantiles(times["reference"])
    return {
        "rows": rows,
        "variant": answered,
        "calls": len(times[None]),
        "p50_s": p50,
        "p99_s": p99,
        "rows_per_s": rows / p50,
        "reference_p50_s": reference,
        "speedup": reference / p50,
    }


def _quantiles(times: list[float]) -> tuple[float, float]:
    ordered = sorted(times)
    return statistics.median(ordered), ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))]


def _arrays(file: Path) -> dict[str, np.ndarray]:
    import zipfile

    import numpy as np

    try:
        with np.load(file, allow_pickle=False) as npz:
            return dict(npz)
    except (OSError, ValueError, AttributeError, zipfile.BadZipFile) as exc:
        raise fail(f"{file} is not an npz of plain arrays: {exc}", USAGE) from None


def _chosen(arrays: dict[str, np.ndarray], metadata: dict[str, Any], file: Path) -> dict[str, np.ndarray]:
    """The arrays that are inputs of the model; others (labels) are left aside."""
    names = [spec["name"] for spec in metadata["inputs"]]
    missing = [name for name in names if name not in arrays]
    if missing:
        raise fail(f"{file} lacks {', '.join(missing)}; it holds {', '.join(arrays) or 'nothing'}", USAGE)
    return {name: arrays[name] for name in names}


def _batch(metadata: dict[str, Any], rows: int, arrays: dict[str, np.ndarray] | None) -> dict[str, Any]:
    """`rows` rows: of the arrays given, over and over, or made up from the model's metadata."""
    import numpy as np

    from model_store.datatypes import numpy_dtype

    if arrays is not None:
        return {name: np.resize(array, (rows, *array.shape[1:])) for name, array in arrays.items()}
    generator = np.random.default_rng(0)
    batch: dict[str, Any] = {}
    for spec in metadata["inputs"]:
        sizes = [16 if size < 0 else size for size in spec["shape"]]
        if spec["shape"] and spec["shape"][0] < 0:
            sizes[0] = rows
        if spec["datatype"] == "BYTES":
            batch[spec["name"]] = np.full(sizes, b"text", dtype=object)
        elif spec["datatype"].startswith(("FP", "BF")):
            batch[spec["name"]] = generator.standard_normal(sizes).astype(numpy_dtype(spec["datatype"]))
        else:  # 0 and 1 are valid ids, masks and flags nearly everywhere
            batch[spec["name"]] = generator.integers(0, 2, sizes).astype(numpy_dtype(spec["datatype"]))
    return batch


def _glimpse(array: np.ndarray, count: int = 8) -> str:
    values = [f"{value:.4g}" if isinstance(value, float) else str(value) for value in array.ravel()[:count].tolist()]
    return " ".join(values) + (" ..." if array.size > count else "")


def _listed(array: np.ndarray) -> Any:
    if array.dtype.kind != "O":
        return array.tolist()
    return [item.decode("utf-8", "replace") if isinstance(item, bytes) else item for item in array.ravel().tolist()]
