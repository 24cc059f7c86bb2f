"""Everything an operator can set: flag > FORGEWAY_* environment > forgeway.toml > default. Unknown keys fail.

A setting is here only because two deployments need different values.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

MIB = 1 << 20
Seconds = Annotated[float, Field(gt=0)]


class Settings(BaseSettings):
    """One frozen object, built once by the command line and handed down."""

    model_config = SettingsConfigDict(
        env_prefix="FORGEWAY_", toml_file="forgeway.toml", extra="forbid", frozen=True, env_ignore_empty=True
    )

    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8000, ge=0, le=65535, description="HTTP port (0: any free one)")
    grpc_port: int = Field(8001, ge=0, le=65535, description="gRPC port (0: any free one)")
    grpc: bool = Field(True, description="serve gRPC beside HTTP")
    gateways: int = Field(1, ge=1, le=64, description="processes that accept requests (more: for many cores)")
    data: Path = Field(Path("forgeway-data"), description="data folder: catalog, blobs, work")
    database_url: str | None = Field(None, description="catalog elsewhere, e.g. postgresql+psycopg://user@host/db")
    server_name: str = Field("forgeway", description="name in V2 server metadata (some clients insist on 'triton')")
    compile: bool = Field(True, description="run a compile worker beside the gateway")
    require_keys: bool = Field(False, description="refuse requests without an API key even when none was made yet")
    insecure: bool = Field(False, description="allow listening beyond loopback without any API key")
    threads: int | None = Field(None, ge=1, description="threads of a runner (default: the cores it may use)")
    max_inflight: int = Field(1024, ge=1, description="predictions admitted at once; the next one is refused with 503")
    shared_memory: bool = Field(False, description="let clients pass tensors through files of /dev/shm they name")
    max_body_bytes: int = Field(64 * MIB, ge=1024, description="largest prediction body")
    max_upload_bytes: int = Field(4096 * MIB, ge=1024, description="largest model or samples upload")
    slot_bytes: int = Field(512 * MIB, ge=MIB, description="shared memory of one batch: its inputs and its outputs")
    timeout_s: Seconds = Field(30.0, description="deadline of a prediction that names none")
    max_timeout_s: Seconds = Field(300.0, description="longest deadline a client may ask for")
    receive_timeout_s: Seconds = Field(60.0, description="longest silence while a body is received")
    load_timeout_s: Seconds = Field(120.0, description="longest time a runner may take to open a variant")
    follow_interval_s: Seconds = Field(0.1, description="how often the catalog is asked for changes")
    drain_delay_s: float = Field(0.0, ge=0, description="after SIGTERM: not ready, still accepting, for this long")
    drain_timeout_s: Seconds = Field(30.0, description="after that: longest wait for requests in flight")
    log_level: str = Field("info", pattern="^(debug|info|warning|error)$", description="least level logged")

    def masked(self) -> dict[str, Any]:
        """Every setting by name, fit for people and logs: the password in a database URL is hidden."""
        values = self.model_dump(mode="json")
        if values["database_url"] is not None:
            values["database_url"] = re.sub(r"(//[^:/@]*:)[^@]*@", r"\1***@", values["database_url"])
        return values

    def catalog_environment(self) -> dict[str, str]:
        """Tells a child where the catalog is. Everybody may read its command line, and the URL may hold a password."""
        return {} if self.database_url is None else {"FORGEWAY_DATABASE_URL": self.database_url}

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)


def origins(settings: Settings) -> dict[str, str]:
    """Where each value comes from: `flag` (or code), `environment`, `forgeway.toml` or `default`."""
    kind = type(settings)
    environment = EnvSettingsSource(kind)()
    file = TomlConfigSettingsSource(kind)()
    found = {}
    for name in kind.model_fields:
        value = getattr(settings, name)
        if name in environment and kind(**{name: environment[name]}).__dict__[name] == value:
            found[name] = "environment"
        elif name not in environment and name in file:
            found[name] = "forgeway.toml"
        else:
            found[name] = "flag" if name in environment or value != kind.model_fields[name].default else "default"
    return found


def settings_from(flags: dict[str, Any]) -> Settings:
    """Settings with the flags that were given (None: not given) on top."""
    return Settings(**{key: value for key, value in flags.items() if value is not None})
