"""System shared memory regions that clients register: tensors are read from them and written to them by name.

A region is part of a POSIX shared memory file (`/dev/shm/KEY`), which its client owns and may cut off at any moment.
So it is never mapped, only read and written through its descriptor: what is missing is then an error of one request,
where a mapping would be a SIGBUS of the whole gateway. That costs the same single copy an HTTP body costs.

Keys are names, never paths, and links are not followed; still a registered key is a file of this machine that the
gateway's user may open. Hence the feature is off unless the setting `shared_memory` is on. CUDA regions are refused:
the gateway holds no GPU.

Texts of refusals are those of Triton's shared_memory_manager.cc, because clients test for them.
"""

from __future__ import annotations

import os
import re
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from gateway.errors import AlreadyExists, BadRequest, NotFound, TooLarge, Unsupported

SHM = Path("/dev/shm")  # noqa: S108 - where POSIX says shared memory is
MOST_REGIONS = 512
"""Each holds a descriptor, and connections need some, too."""

MOST_NAME = 256
_KEY = re.compile(r"/[A-Za-z0-9_.-]{1,254}\Z")


@dataclass(slots=True)
class _Region:
    key: str
    offset: int
    byte_size: int
    descriptor: int

    def __del__(self) -> None:  # with the last request that reads it
        with suppress(OSError):
            os.close(self.descriptor)


class Regions:
    """Every registered region. `read` and `write` may be called from any thread, the rest only from one."""

    def __init__(self, enabled: bool, folder: Path = SHM, most_bytes: int = 1 << 29) -> None:
        """`most_bytes`: largest tensor that is read."""
        self.enabled = enabled
        self._folder = folder
        self._most_bytes = most_bytes
        self._regions: dict[str, _Region] = {}

    def register(self, name: str, key: str, offset: int, byte_size: int) -> None:
        """Take `byte_size` bytes from `offset` of the shared memory `key` under `name`.

        Raises Unsupported (the setting is off), AlreadyExists, BadRequest.
        """
        if not self.enabled:
            raise Unsupported(
                "system shared memory is not enabled on this server: its operator can, with the setting shared_memory"
            )
        if not name or len(name) > MOST_NAME:
            raise BadRequest(f"a shared memory region needs a name of 1 to {MOST_NAME} characters")
        if name in self._regions:
            raise AlreadyExists(f"shared memory region '{name}' already in manager")
        if len(self._regions) >= MOST_REGIONS:
            raise BadRequest(f"there are {MOST_REGIONS} shared memory regions already: unregister some first")
        if not _KEY.match(key) or key in ("/.", "/.."):
            raise BadRequest(
                f"Unable to open shared memory region: '{key[:255]}': a key is one '/' and then letters, digits, "
                "'_', '.' and '-'"
            )
        region = _Region(key, offset, byte_size, self._open(key))
        size = os.fstat(region.descriptor)
        if not stat.S_ISREG(size.st_mode):
            raise BadRequest(f"Unable to open shared memory region: '{key}'")
        if offset < 0 or byte_size < 1 or offset + byte_size > size.st_size:
            raise BadRequest(
                f"failed to register shared memory region '{name}': invalid args: offset {offset} and byte_size "
                f"{byte_size} do not lie within its {size.st_size} bytes"
            )
        self._regions[name] = region

    def descriptor(self, name: str) -> int:
        """The file of a region, for another process of this gateway. It stays this object's to close."""
        return self._regions[name].descriptor

    def adopt(self, name: str, key: str, offset: int, byte_size: int, descriptor: int) -> None:
        """Take a region that another process of this gateway has registered, and its `descriptor`."""
        self._regions[name] = _Region(key, offset, byte_size, descriptor)

    def unregister(self, name: str | None = None) -> None:
        """Forget one region, or all. One that is not there is no error. Requests that use it may finish."""
        if name is None:
            self._regions.clear()
        else:
            self._regions.pop(name, None)

    def status(self, name: str | None = None) -> list[dict[str, str | int]]:
        """Facts of all regions, or of one. Raises NotFound."""
        if name is not None and name not in self._regions:
            raise NotFound(f"Unable to find system shared memory region: '{name}'")
        return [
            {"name": known, "key": region.key, "offset": region.offset, "byte_size": region.byte_size}
            for known, region in self._regions.items()
            if name in (None, known)
        ]

    def read(self, name: str, offset: int, byte_size: int) -> bytes:
        """A copy of `byte_size` bytes from `offset` of the region. Raises NotFound, BadRequest, TooLarge."""
        region = self.check(name, offset, byte_size)
        if byte_size > self._most_bytes:
            raise TooLarge(f"{byte_size} bytes of shared memory are more than a batch can hold ({self._most_bytes})")
        at, left, parts = region.offset + offset, byte_size, []
        while left:
            part = os.pread(region.descriptor, left, at)
            if not part:
                raise BadRequest(f"shared memory region '{name}' was cut off by its owner: {left} bytes are missing")
            parts.append(part)
            at, left = at + len(part), left - len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def write(self, name: str, offset: int, data: bytes | memoryview) -> None:
        """Write `data` to `offset` of the region. Raises NotFound, BadRequest."""
        region = self.check(name, offset, len(data))
        at, rest = region.offset + offset, memoryview(data)
        if at + len(rest) > os.fstat(region.descriptor).st_size:  # writing would make it longer again
            raise BadRequest(f"shared memory region '{name}' was cut off by its owner")
        try:
            while rest:
                done = os.pwrite(region.descriptor, rest, at)
                at, rest = at + done, rest[done:]
        except OSError as exc:
            raise BadRequest(f"shared memory region '{name}' cannot be written: {exc.strerror}") from None

    def check(self, name: str, offset: int, byte_size: int) -> _Region:
        """The region, if these bytes lie within it. Raises NotFound, BadRequest."""
        region = self._regions.get(name)
        if region is None:
            raise NotFound(f"Unable to find shared memory region: '{name}'")
        if not 0 <= offset < region.byte_size:
            raise BadRequest(f"Invalid offset for shared memory region: '{name}'")
        if byte_size < 0 or offset + byte_size > region.byte_size:
            raise BadRequest(f"Invalid offset + byte size for shared memory region: '{name}'")
        return region

    def _open(self, key: str) -> int:
        flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
        try:
            return os.open(self._folder / key[1:], flags)
        except OSError:
            raise BadRequest(f"Unable to open shared memory region: '{key}'") from None


class CudaRegions:
    """What there is to say of CUDA regions where there is no GPU."""

    def register(self, name: str) -> None:
        """Raises BadRequest, always."""
        raise BadRequest(f"failed to register CUDA shared memory region: '{name[:MOST_NAME]}', GPUs not supported")

    def unregister(self, name: str | None = None) -> None:
        """Nothing is there to forget, and that is no error."""

    def status(self, name: str | None = None) -> list[dict[str, str | int]]:
        """Facts of all regions: none. Raises NotFound when one is asked for by name."""
        if name is not None:
            raise NotFound(f"Unable to find cuda shared memory region: '{name}'")
        return []
