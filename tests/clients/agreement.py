"""Many clients over HTTP binary, HTTP JSON and gRPC at once: `python -m tests.clients.agreement --requests 50000`.

Every answer is checked. The suite asks a few thousand.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tests.clients.models import serving
from tests.clients.running import run_script


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=50_000)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, serving(Path(name)) as gateway:
        done = run_script(gateway, "agreement", "-s", timeout_s=3600, FORGEWAY_REQUESTS=str(asked.requests))
    print(done.stdout, done.stderr)
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
