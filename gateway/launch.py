"""Run a module that must not outlive its parent: `python -m gateway.launch MODULE ARGS...`.

The process asks the kernel to kill it when its parent dies (man 2 PR_SET_PDEATHSIG), then becomes the module. This
is a module and not a `preexec_fn` because code between fork and exec of a threaded process may deadlock.
"""

from __future__ import annotations

import ctypes
import os
import runpy
import signal
import sys

_PR_SET_PDEATHSIG = 1


def die_with_parent(parent: int) -> None:
    """SIGKILL this process when `parent` ends. Exits at once when it has ended already."""
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent:
        sys.exit("the parent is gone")


def main() -> None:
    _, parent, module, *args = sys.argv
    die_with_parent(int(parent))
    sys.argv = [module, *args]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
