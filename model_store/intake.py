"""Take in what a client sent: everything that reads hostile bytes happens in a confined child, never here.

The parent (`admit`, `check_samples`) spawns `python -m model_store.intake`, which may read the upload and write its
work folder and nothing else, and answers with one JSON file. The parent believes that answer only as far as its types
go, and turns every other end of the child (a crash, a deadline, too much memory) into an error about the upload.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from model_store.entities import Signature
from model_store.errors import Invalid, InvalidModel, InvalidSamples
from model_store.names import valid_name
from model_store.sandbox import GIB, Limits, Outcome, run_confined

__all__ = ["Admitted", "admit", "check_samples", "valid_name"]

LIMITS = Limits(seconds=120, memory_bytes=3 * GIB, file_bytes=2 * GIB, nice=0, processes=0)
"""Memory comes on top of what the upload itself takes: see `_limits_for`."""

_COPIES = 6
"""Of the upload, at the worst moment: as read, unpacked, parsed, written, and twice in the checker."""
_LONGEST_ANSWER, _LONGEST_MESSAGE = 64 << 20, 1_000


@dataclass(frozen=True, slots=True)
class Admitted:
    """A model that may be stored. `file` is canonical, self-contained ONNX; `parameters` its number of weights."""

    file: Path
    signature: Signature
    parameters: int
    operators: Mapping[str, int]


class _Request(msgspec.Struct):
    upload: str
    signature: Signature | None = None
    """Given: the upload is samples of a model with this signature. Not given: it is a model."""


class _Answer(msgspec.Struct):
    refused: str = ""
    signature: Signature | None = None
    parameters: int = 0
    operators: dict[str, int] = {}
    samples: int = 0


def admit(upload: Path, workdir: Path, limits: Limits | None = None) -> Admitted:
    """Check an upload (ONNX, or a zip, tar or tar.gz of one ONNX file with its external data) and make it canonical.

    `workdir` is an empty folder of the caller's, who deletes it. Raises InvalidModel, and leaves `upload` as it is.
    """
    if not _is_plain(upload):
        raise InvalidModel("the model must come as a plain file, not as a link, a pipe or a device")
    answer = _ask(_Request(str(upload.absolute())), workdir, limits or _limits_for(upload), InvalidModel)
    file = workdir / _MODEL
    if answer.signature is None or not _is_plain(file):
        raise InvalidModel("the model could not be checked: its checker gave no answer")
    return Admitted(file, answer.signature, answer.parameters, answer.operators)


def check_samples(samples: Path, signature: Signature, workdir: Path, limits: Limits | None = None) -> int:
    """The number of samples in an npz for a model of this signature. Raises InvalidSamples."""
    if not _is_plain(samples):
        raise InvalidSamples("the samples must come as a plain file, not as a link, a pipe or a device")
    request = _Request(str(samples.absolute()), signature)
    answer = _ask(request, workdir, limits or replace(LIMITS, memory_bytes=16 * GIB), InvalidSamples)
    return answer.samples


_REQUEST, _RESULT, _MODEL = "request.json", "result.json", "model.onnx"


def _ask(request: _Request, workdir: Path, limits: Limits, invalid: type[Invalid]) -> _Answer:
    what = "model" if invalid is InvalidModel else "samples"
    workdir.mkdir(parents=True, exist_ok=True)
    (workdir / _RESULT).unlink(missing_ok=True)
    (workdir / _REQUEST).write_bytes(msgspec.json.encode(request))
    folder = str(workdir.absolute())
    limits = replace(limits, writable=(folder,), readable=(folder, request.upload))
    outcome = run_confined("model_store.intake", [_REQUEST], limits=limits, workdir=workdir)
    if not outcome.ok:
        raise invalid(_end(outcome, what, limits))
    answer = _read_answer(workdir / _RESULT)
    if answer is None:
        raise invalid(f"the {what} could not be checked: the checker gave no answer")
    if answer.refused:
        raise invalid(_clean(answer.refused))
    return answer


def _limits_for(upload: Path) -> Limits:
    size = upload.stat().st_size
    with upload.open("rb") as file:
        packed = not file.read(1).startswith(b"\x08")
    # A packed upload may grow up to the most a model can have; address space that is not touched costs nothing.
    return replace(LIMITS, memory_bytes=LIMITS.memory_bytes + _COPIES * (2 * GIB if packed else min(size, 2 * GIB)))


def _read_answer(file: Path) -> _Answer | None:
    if not _is_plain(file) or file.stat().st_size > _LONGEST_ANSWER:
        return None
    try:
        return msgspec.json.decode(file.read_bytes(), type=_Answer)
    except (msgspec.DecodeError, OSError):
        return None


def _is_plain(file: Path) -> bool:
    try:
        return stat.S_ISREG(file.lstat().st_mode)
    except FileNotFoundError:
        return False


def _end(outcome: Outcome, what: str, limits: Limits) -> str:
    """What the end of a child says about the upload."""
    match outcome.cause:
        case "timeout":
            return f"checking the {what} took more than {limits.seconds:,.0f} s and was stopped"
        case "memory" | "SIGKILL":
            return f"checking the {what} took more memory than it may have ({limits.memory_bytes / GIB:,.1f} GiB)"
        case "SIGXFSZ":
            return f"the {what} would be stored as more than {limits.file_bytes / GIB:,.0f} GiB, which is not supported"
        case "error":
            # The words may be a traceback's and hold paths of this machine, so only the kind of the error is told.
            return f"the {what} could not be checked ({outcome.last_words().split(':')[0][:80]}): it is malformed"
        case signal_name:
            return f"checking the {what} crashed the checker ({signal_name}): it is malformed"


def _clean(text: str) -> str:
    """Messages quote hostile text: one printable line of bounded length."""
    line = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return line if len(line) <= _LONGEST_MESSAGE else line[:_LONGEST_MESSAGE] + "..."


def main() -> None:
    """The child: already confined, about to read what a stranger sent."""
    # One thread is enough, and the pools of the numeric libraries would take address space by the core.
    os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"
    request = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=_Request)
    try:
        answer = _answer(request)
    except Invalid as exc:
        answer = _Answer(refused=str(exc))
    Path(_RESULT).write_bytes(msgspec.json.encode(answer))
    sys.stdout.flush()
    os._exit(0)  # the answer is written; taking a large model apart object by object would only cost time


def _answer(request: _Request) -> _Answer:
    upload = Path(request.upload)
    if request.signature is not None:
        from model_store import samples

        return _Answer(samples=samples.check(upload, request.signature))
    from model_store.archive import unpack
    from model_store.canonical import canonicalise

    facts = canonicalise(unpack(upload), Path(_MODEL))
    return _Answer(signature=facts.signature, parameters=facts.parameters, operators=facts.operators)


if __name__ == "__main__":
    main()
