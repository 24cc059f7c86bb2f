"""The extensions of V2 this server speaks: only what really works is listed, since clients rely on it."""

from __future__ import annotations

from gateway.settings import Settings

_ALWAYS = (
    "binary_tensor_data", "classification", "logging", "model_configuration", "model_repository", "parameters",
    "schedule_policy", "statistics",
)  # fmt: skip


def extensions(settings: Settings) -> list[str]:
    """Names as Triton's: `trace` and `cuda_shared_memory` answer but do nothing here, so they are not among them."""
    return [*_ALWAYS, *(["system_shared_memory"] if settings.shared_memory else [])]
