"""`python -m model_store.unpack BLOBS DIGEST...` prints where the plain bytes of each blob lie, unpacked if need be."""

from __future__ import annotations

import sys
from pathlib import Path

from model_store.blobs import LocalBlobs
from model_store.errors import BlobMissing


def main() -> None:
    root, *digests = sys.argv[1:]
    try:
        for digest in digests:
            sys.stdout.write(f"{LocalBlobs(Path(root)).path(digest)}\n")
    except BlobMissing as exc:
        sys.exit(str(exc))


if __name__ == "__main__":
    main()
