"""What this machine's CPU is and can do, read from the operating system: no runtime is asked or imported.

The facts are part of every step key and of all Evidence: a variant measured on other hardware is measured again.
"""

from __future__ import annotations

import functools
import os
import platform
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")

FLAGS_THAT_MATTER = (
    "avx2", "fma", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_int8",
    "amx_bf16", "asimd", "asimddp", "i8mm", "bf16", "sve",
)  # fmt: skip
"""Instruction sets that change which kernels the runtimes choose (x86 names, then those of Arm)."""


@functools.cache
def cpu_flags() -> frozenset[str]:
    """Flags of the first CPU as Linux names them; empty where there is no /proc/cpuinfo."""
    return frozenset((_field("flags") or _field("Features")).split())


@functools.cache
def cpu_model() -> str:
    """The CPU as its maker names it, or the machine's architecture."""
    return _field("model name") or platform.processor() or platform.machine()


def usable_cores() -> int:
    """Cores this process may run on: fewer than the machine's under an affinity mask."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def has_bf16() -> bool:
    """True when the CPU multiplies bfloat16 itself; without it bf16 is emulated and slower than f32."""
    return not cpu_flags().isdisjoint(("avx512_bf16", "amx_bf16", "bf16"))


def has_int8_dot() -> bool:
    """True when the CPU has an int8 dot product; without it u8 x s8 saturates in 16 bits."""
    return not cpu_flags().isdisjoint(("avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm"))


def fingerprint() -> dict[str, str]:
    """The hardware facts that change what is built or how fast it runs, as text."""
    return {
        "cpu": cpu_model(),
        "cores": str(usable_cores()),
        "flags": " ".join(flag for flag in FLAGS_THAT_MATTER if flag in cpu_flags()),
    }


@functools.cache
def _field(name: str) -> str:
    try:
        text = _CPUINFO.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""
