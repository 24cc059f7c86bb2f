"""Unpack an upload into memory: one ONNX model and the files it may refer to, by name.

Nothing is ever written to disk, so there is nothing a name could escape to and nothing a link could point at; links,
devices and odd names are refused all the same, because an archive that holds them was not made to be served.
Zip bombs meet three walls: the number of members, the declared size before, and the actual size while unpacking.
"""

from __future__ import annotations

import gzip
import io
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from model_store import formats
from model_store.errors import InvalidModel

MOST_MEMBERS = 1_000
MOST_BYTES = (1 << 31) - 1
"""Protobuf messages end at 2 GiB, and the stored model is a single one."""
MOST_RATIO, RATIO_FROM_BYTES = 100, 32 << 20
LONGEST_NAME = 255


@dataclass(frozen=True, slots=True)
class Upload:
    """`model` is the ONNX file, `name` its path in the archive ("" when it came alone), `files` what lay beside it."""

    model: bytes
    name: str
    files: Mapping[str, bytes]

    @property
    def folder(self) -> PurePosixPath:
        return PurePosixPath(self.name).parent


def unpack(path: Path) -> Upload:
    """Read an upload. Raises InvalidModel for anything but ONNX, or a zip, tar or tar.gz with exactly one ONNX file."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(formats.HEAD_BYTES)
        kind = formats.container(head, "the upload")
        file.seek(0)
        if kind == "onnx":
            if size > MOST_BYTES:
                raise InvalidModel(f"the model has {size:,} bytes; models beyond 2 GiB are not supported yet")
            return Upload(file.read(), "", {})
        try:
            files = dict(_members_of(kind, file, size))
        except (
            zipfile.BadZipFile,
            tarfile.TarError,
            zlib.error,
            gzip.BadGzipFile,
            EOFError,
            NotImplementedError,
        ) as exc:
            raise InvalidModel(f"the {kind} archive is damaged or cut short ({exc}); send it again") from None
    return _choose(files)


def _members_of(kind: str, file: io.BufferedReader, size: int) -> Iterator[tuple[str, bytes]]:
    budget = _Budget(packed=size)
    match kind:
        case "zip":
            return _zip_members(file, budget)
        case "gzip":
            return _tar_members(_Counted(gzip.GzipFile(fileobj=file), budget), budget)
        case _:
            return _tar_members(file, budget)


def _choose(files: dict[str, bytes]) -> Upload:
    formats.refuse_foreign_members(list(files))
    models = sorted(name for name in files if name.lower().endswith(".onnx"))
    if len(models) != 1:
        held = ", ".join(repr(name) for name in (models or sorted(files))[:5]) or "nothing"
        count = f"{len(models)} ONNX files" if models else "no ONNX file"
        raise InvalidModel(f"the archive holds {count} ({held}); it must hold exactly one file named *.onnx")
    model = files.pop(models[0])
    if formats.container(model[: formats.HEAD_BYTES], f"{models[0]!r} in the archive") != "onnx":
        raise InvalidModel(f"{models[0]!r} in the archive is an archive itself; it must be the ONNX file")
    return Upload(model, models[0], files)


class _Budget:
    """Bytes that may still be unpacked; refuses before they are spent."""

    def __init__(self, packed: int) -> None:
        self.packed, self.spent, self.members = packed, 0, 0

    def member(self) -> None:
        self.members += 1
        if self.members > MOST_MEMBERS:
            raise InvalidModel(f"the archive holds more than {MOST_MEMBERS:,} files")

    def spend(self, count: int) -> None:
        self.spent += count
        if self.spent > MOST_BYTES:
            raise InvalidModel("the archive unpacks to more than 2 GiB; larger models are not supported yet")
        if self.spent > max(RATIO_FROM_BYTES, MOST_RATIO * self.packed):
            raise InvalidModel(
                f"the archive unpacks to more than {MOST_RATIO} times its {self.packed:,} bytes, like a zip bomb; "
                "send the .onnx file as it is"
            )


def _zip_members(file: io.BufferedReader, budget: _Budget) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(file) as archive:
        seen = _Names()
        for info in archive.infolist():
            budget.member()
            kind = stat.S_IFMT(info.external_attr >> 16)
            if info.is_dir():
                seen.checked(info.orig_filename)
                continue
            if kind not in (0, stat.S_IFREG):
                raise InvalidModel(
                    f"{_shown(info.filename)} in the archive is {_kind_of(kind)}; only files are accepted"
                )
            if info.flag_bits & 1:
                raise InvalidModel(f"{_shown(info.filename)} in the archive is encrypted; send it without a password")
            name = seen.checked(info.orig_filename)
            if _is_litter(name):
                continue
            budget.spend(info.file_size)
            with archive.open(info) as member:
                yield name, member.read(info.file_size + 1)


def _tar_members(stream: io.BufferedReader | _Counted, budget: _Budget) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(fileobj=stream, mode="r|") as archive:
        seen = _Names()
        for info in archive:
            budget.member()
            if info.isdir():
                seen.checked(info.name)
                continue
            if info.issym() or info.islnk():
                raise InvalidModel(
                    f"{_shown(info.name)} in the archive is a link to {_shown(info.linkname)}; links are not followed, "
                    "pack the files themselves (tar --dereference --hard-dereference)"
                )
            if not info.isreg() or info.issparse():
                raise InvalidModel(f"{_shown(info.name)} in the archive is no plain file; only files are accepted")
            name = seen.checked(info.name)
            if _is_litter(name):
                continue
            if not isinstance(stream, _Counted):
                budget.spend(info.size)
            content = archive.extractfile(info)
            data = content.read(info.size) if content else b""
            if len(data) != info.size:
                raise tarfile.ReadError(f"{info.name} is cut short")
            yield name, data


class _Names:
    """The names seen so far; every name is plain, relative, and there once."""

    def __init__(self) -> None:
        self._seen: set[str] = set()

    def checked(self, given: str) -> str:
        name = given.removeprefix("./").rstrip("/")
        fault = _fault(name) if given not in (".", "./") else ""
        if fault:
            raise InvalidModel(f"the archive holds a file named {_shown(given)}: {fault}")
        if name in self._seen:
            raise InvalidModel(f"the archive holds two files named {_shown(given)}")
        self._seen.add(name)
        return name


def _fault(name: str) -> str:
    if name.startswith("/") or name[1:2] == ":":
        return "names must be relative, this one is absolute"
    if "\\" in name or "\0" in name or not name.isprintable():
        return "backslashes, NUL and control characters are not allowed in names"
    if ".." in name.split("/"):
        return "'..' is not allowed in names"
    if not all(name.split("/")) or len(name) > LONGEST_NAME:
        return f"names must be 1 to {LONGEST_NAME} characters without empty parts"
    return ""


def _is_litter(name: str) -> bool:
    """What file managers slip into archives: never the model, whatever its name ends with."""
    return name.startswith("__MACOSX/") or name.rsplit("/", 1)[-1].startswith("._")


def _kind_of(kind: int) -> str:
    return {stat.S_IFLNK: "a symbolic link", stat.S_IFIFO: "a pipe"}.get(kind, "a device")


def _shown(name: str) -> str:
    return repr(name if len(name) <= 80 else name[:80] + "...")


class _Counted(io.RawIOBase):
    """A stream that spends the budget as it is read: what a compressed tar really unpacks to."""

    def __init__(self, inner: gzip.GzipFile, budget: _Budget) -> None:
        self._read: Callable[[int], bytes] = inner.read
        self._budget = budget

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data = self._read(size if size >= 0 else 1 << 20)
        self._budget.spend(len(data))
        return data
