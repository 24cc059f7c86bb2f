"""What a file is, by its first bytes: so that what is not ONNX is refused with the words that help.

Nothing here decodes anything. Several of these formats run code when they are loaded, which is why they are never
accepted, not even to be converted (OPERATIONS: model intake rules).
"""

from __future__ import annotations

from model_store.errors import InvalidModel

HEAD_BYTES = 512

_EXPORT = "export the model to ONNX (for PyTorch: torch.onnx.export) and send the .onnx file"
_CODE = "loading it would run code that came with it"

_FOREIGN: tuple[tuple[int, bytes, str, str], ...] = (
    (0, b"\x80\x02", "a pickle (PyTorch, joblib, scikit-learn)", f"{_CODE}; {_EXPORT}"),
    (0, b"\x80\x03", "a pickle (PyTorch, joblib, scikit-learn)", f"{_CODE}; {_EXPORT}"),
    (0, b"\x80\x04", "a pickle (PyTorch, joblib, scikit-learn)", f"{_CODE}; {_EXPORT}"),
    (0, b"\x80\x05", "a pickle (PyTorch, joblib, scikit-learn)", f"{_CODE}; {_EXPORT}"),
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file (Keras)", "convert it with tf2onnx and send the .onnx file"),
    (
        0,
        b"ptrt",
        "a TensorRT engine",
        "engines hold executable code and are built by the gateway itself; send the ONNX",
    ),
    (
        0,
        b"ftrt",
        "a TensorRT engine",
        "engines hold executable code and are built by the gateway itself; send the ONNX",
    ),
    (
        4,
        b"ORTM",
        "an ONNX Runtime .ort file",
        "it is tied to one version of the runtime; send the ONNX it was made from",
    ),
    (4, b"TFL3", "a TensorFlow Lite model", "convert it with tf2onnx and send the .onnx file"),
    (0, b"GGUF", "a GGUF file", "export the model to ONNX and send that"),
    (0, b"\x93NUMPY", "a NumPy array", "samples go into an .npz beside the model; the model itself must be ONNX"),
    (0, b"\x7fELF", "a program or shared library", "custom operators are not accepted; send an ONNX file"),
    (0, b"<?xml", "an XML file (OpenVINO IR?)", "send the ONNX it was made from; the gateway compiles it for OpenVINO"),
    (0, b"\xfd7zXZ\x00", "an xz archive", "send the .onnx file, or a zip or tar.gz of it"),
    (0, b"BZh", "a bzip2 archive", "send the .onnx file, or a zip or tar.gz of it"),
    (0, b"\x28\xb5\x2f\xfd", "a zstandard archive", "send the .onnx file, or a zip or tar.gz of it"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", "send the .onnx file, or a zip or tar.gz of it"),
    (0, b"Rar!", "a RAR archive", "send the .onnx file, or a zip or tar.gz of it"),
    (0, b"<!DOCTYPE", "an HTML page", "perhaps a download that answered with an error; send the .onnx file"),
    (0, b"<html", "an HTML page", "perhaps a download that answered with an error; send the .onnx file"),
    (0, b"version https://git-lfs", "a Git LFS pointer", "run `git lfs pull` and send the file it stands for"),
    (3, b'\0\0\0\0\0{"', "a safetensors file (weights without a graph)", _EXPORT),
)

_MEMBERS: tuple[tuple[str, str, str], ...] = (
    ("data.pkl", "a PyTorch checkpoint", f"{_CODE}; {_EXPORT}"),
    ("constants.pkl", "a TorchScript archive", f"{_CODE}; {_EXPORT}"),
    ("model.weights.h5", "a Keras model", "convert it with tf2onnx and send the .onnx file"),
    ("saved_model.pb", "a TensorFlow SavedModel", "convert it with tf2onnx and send the .onnx file"),
)


def container(head: bytes, what: str) -> str:
    """`zip`, `gzip`, `tar`, or `onnx` for whatever may be ONNX. Raises InvalidModel for what surely is not.

    `head` are the first HEAD_BYTES bytes, `what` names the file in the message ("the upload", a member's name).
    """
    if not head:
        raise InvalidModel(f"{what} is empty; send an ONNX file, or a zip or tar.gz of one with its external data")
    for offset, magic, name, advice in _FOREIGN:
        if head[offset : offset + len(magic)] == magic:
            raise InvalidModel(f"{what} is {name}, not ONNX: {advice}")
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return "zip"
    if head.startswith(b"\x1f\x8b"):
        return "gzip"
    return "tar" if head[257:262] == b"ustar" else "onnx"


def refuse_foreign_members(names: list[str]) -> None:
    """Raise InvalidModel when the names in an archive tell another framework's format."""
    for member, name, advice in _MEMBERS:
        if any(given.rsplit("/", 1)[-1] == member for given in names):
            raise InvalidModel(f"the archive is {name} (it holds {member}), not ONNX: {advice}")
    if names and all(name.endswith(".npy") for name in names):
        raise InvalidModel("the archive is an .npz of arrays: send it as the samples; the model itself must be ONNX")
