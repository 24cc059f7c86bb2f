"""What the server and its models say of themselves under V2, in the form of REST; gRPC says the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gateway.model_config import PLATFORM
from gateway.routing.router import RouteTable
from model_store.entities import TensorSpec


def metadata_of(table: RouteTable, name: str, version: str | None = None) -> dict[str, Any]:
    """Inputs, outputs and ready versions of a model; with a version, of that one only. Raises NotFound, NotReady."""
    route = table.resolve(name, version)
    return {
        "name": route.name,
        "versions": list(table.models[name].versions) if version is None else [route.version],
        "platform": PLATFORM,
        "inputs": _specs(route.signature.inputs),
        "outputs": _specs(route.signature.outputs),
    }


def _specs(of: Sequence[TensorSpec]) -> list[dict[str, Any]]:
    return [{"name": spec.name, "datatype": spec.datatype, "shape": list(spec.shape)} for spec in of]
