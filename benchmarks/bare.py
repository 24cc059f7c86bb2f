"""A variant's session with nothing around it: `python -m benchmarks.bare SPEC.json` runs one row over and over.

In a process of its own, through the same target file that the runner uses, with the same files, options and threads.
With `pause_s` it sleeps before each run, as a session that is asked by somebody does: its threads have gone to sleep by
then and its caches have cooled.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np

from benchmarks.figures import Figures
from compilers.targets import load_target

WARM_UP_S = 0.4


def main() -> None:
    spec = json.loads(Path(sys.argv[1]).read_text())
    files = {name: Path(path) for name, path in spec["files"].items()}
    session = load_target(spec["target"]).open(files, spec["options"], spec["threads"])
    with np.load(spec["inputs"]) as loaded:
        inputs = dict(loaded)
    until = time.perf_counter() + WARM_UP_S
    while time.perf_counter() < until:
        session.run(inputs)
    times: list[float] = []
    started = time.perf_counter()
    pause_s = spec.get("pause_s", 0.0)
    while time.perf_counter() < started + spec["seconds"]:
        if pause_s:
            time.sleep(pause_s)
        begun = time.perf_counter()
        session.run(inputs)
        times.append(time.perf_counter() - begun)
    print(json.dumps(Figures.of(times, len(times) / (time.perf_counter() - started)).as_dict()))


if __name__ == "__main__":
    main()
