"""The route table: names and versions to the routes that answer them. Immutable; the follower replaces it whole."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.errors import NotFound, NotReady
from gateway.routing.explain import explain
from gateway.routing.forecast import Forecast
from gateway.routing.health import Health
from gateway.routing.ranking import VersionRoute


@dataclass(frozen=True)
class ModelRoutes:
    """The versions of one model that can answer, its aliases, and the version that unversioned requests get."""

    versions: Mapping[str, VersionRoute]
    aliases: Mapping[str, str]
    default: str | None
    absent: Mapping[str, str] = field(default_factory=dict)
    """Versions that exist and cannot answer -> why."""
    unloaded: bool = False
    """Taken out of routing by the model repository, until it is loaded again."""


@dataclass(frozen=True)
class RouteTable:
    """The whole of routing at one moment. `sequence` is the catalog's when it was read; -1: nothing was read yet."""

    models: Mapping[str, ModelRoutes] = field(default_factory=dict)
    sequence: int = -1
    health: Health = field(default_factory=Health)

    def resolve(self, name: str, ref: str | None = None) -> VersionRoute:
        """The version that answers for a name and a version or alias. Raises NotFound, NotReady in Triton's words."""
        model = self.models.get(name)
        if model is None:
            raise NotFound(f"Request for unknown model: '{name}' is not found")
        version = model.default if ref is None else model.aliases.get(ref, ref)
        if version is None:
            if model.absent and not model.unloaded:
                newest, why = list(model.absent.items())[-1]
                raise NotReady(f"Request for unknown model: '{name}' version {newest} is not at ready state: {why}")
            raise NotFound(f"Request for unknown model: '{name}' has no available versions")
        if version in model.versions:
            return model.versions[version]
        if version in model.absent:
            raise NotReady(
                f"Request for unknown model: '{name}' version {version} is not at ready state: {model.absent[version]}"
            )
        raise NotFound(f"Request for unknown model: '{name}' version {version} is not found")

    def explain(
        self,
        name: str,
        version: str | None = None,
        rows: int = 1,
        forecast_of: Callable[[VersionRoute], Forecast | None] = lambda route: None,
    ) -> dict[str, Any]:
        """Which variant would answer `rows` rows now, why, and what the others have to show (explain.py)."""
        route = self.resolve(name, version)
        return explain(route, self.health, rows, forecast_of(route))
