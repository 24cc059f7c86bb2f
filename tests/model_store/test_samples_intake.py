"""Samples people make by hand: good ones counted, bad ones refused in words that say what would be right."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model_store import samples
from model_store.entities import Signature, TensorSpec
from model_store.errors import InvalidSamples
from model_store.intake import check_samples
from tests import zoo


def spec(name: str, datatype: str, *shape: int) -> TensorSpec:
    return TensorSpec(name, datatype, shape)


IMAGE = Signature((spec("image", "FP32", -1, 3, 8, 8),), (spec("logits", "FP32", -1, 10),))
TOKENS = Signature(
    (spec("input_ids", "INT64", -1, -1), spec("attention_mask", "INT64", -1, -1)),
    (spec("embedding", "FP32", -1, 384), spec("score", "FP32", -1)),
)
TEXT = Signature((spec("text", "BYTES", -1),), (spec("same", "BYTES", -1),))
PAIRS = Signature((spec("x", "FP32", 2, 4),), (spec("y", "FP32", 2, 4),))
WHOLE = Signature((spec("picture", "FP32", 3, 8, 8), spec("scale", "FP32")), (spec("y", "FP32", 10),))
HALF = Signature((spec("x", "BF16", -1, 4),), (spec("y", "BF16", -1, 4),))

images = np.zeros((6, 3, 8, 8), np.float32)
ids = np.zeros((6, 5), np.int64)


def with_nan(array: np.ndarray, at: int, value: float = np.nan) -> np.ndarray:
    changed = array.copy()
    changed[at].flat[0] = value
    return changed


GOOD: list[tuple[str, Signature, dict[str, Any], int]] = [
    ("exact", IMAGE, {"image": images}, 6),
    ("safely castable", IMAGE, {"image": images.astype(np.float16)}, 6),
    ("small integers for wide ones", TOKENS,
     {"input_ids": ids.astype(np.int32), "attention_mask": ids.astype("u1")}, 6),
    ("other byte order", IMAGE, {"image": images.astype(">f4")}, 6),
    ("column order", IMAGE, {"image": np.asfortranarray(images)}, 6),
    ("classes", IMAGE, {"image": images, "labels": np.arange(6)}, 6),
    ("expected outputs", IMAGE, {"image": images, "labels": np.ones((6, 10), np.float32)}, 6),
    ("named labels", IMAGE, {"image": images, "labels.logits": np.arange(6)}, 6),
    ("labels of two outputs", TOKENS,
     {"input_ids": ids, "attention_mask": ids, "labels.score": np.ones(6), "labels.embedding": np.arange(6)}, 6),
    ("texts", TEXT, {"text": np.array(["a", "bc"])}, 2),
    ("bytes", TEXT, {"text": np.array([b"a", b"bc"])}, 2),
    ("fixed batch", PAIRS, {"x": np.zeros((6, 4), np.float32)}, 3),
    ("fixed batch, whole inputs", PAIRS, {"x": np.zeros((6, 2, 4), np.float32)}, 6),
    ("no axis for rows", WHOLE, {"picture": images, "scale": np.ones(6, np.float32)}, 6),
    ("bfloat16 as float32", HALF, {"x": np.ones((6, 4), np.float32)}, 6),
]  # fmt: skip

BAD: list[tuple[str, Signature, dict[str, Any], tuple[str, ...]]] = [
    ("misspelt input", IMAGE, {"imgae": images},
     ("lack the input 'image'", "'imgae' is no input", "did you mean 'image'?")),
    ("missing input", TOKENS, {"input_ids": ids},
     ("lack the input 'attention_mask'", "takes 'input_ids', 'attention_mask'")),
    ("extra array", IMAGE, {"image": images, "label": ids[:, 0]}, ("'label' is no input", "did you mean 'labels'?")),
    ("double precision", IMAGE, {"image": images.astype(float)}, ("float64", "takes FP32", "image.astype('float32')")),
    ("floats for tokens", TOKENS, {"input_ids": ids.astype(float), "attention_mask": ids}, ("float64", "takes INT64")),
    ("texts for numbers", IMAGE, {"image": np.array(["a"])}, ("holds texts", "takes FP32")),
    ("numbers for texts", TEXT, {"text": np.zeros(3)}, ("takes texts (BYTES)", "numpy.array of str")),
    ("objects", TEXT, {"text": np.array(["a", "b"], object)}, ("Python objects", "run code", "'U' or 'S'")),
    ("too few axes", IMAGE, {"image": images[0]}, ("[3,8,8]", "[N,3,8,8]", "needs 4 axes", "first axis counting")),
    ("a scalar", IMAGE, {"image": np.float32(1)}, ("needs 4 axes",)),
    ("wrong axis", IMAGE, {"image": images.transpose(0, 2, 3, 1)},
     ("[6,8,8,3]", "axis 1 of the samples has 8", "must have 3")),
    ("counts differ", TOKENS, {"input_ids": ids, "attention_mask": ids[:4]},
     ("'input_ids' 6, 'attention_mask' 4", "same number")),
    ("no samples", IMAGE, {"image": images[:0]}, ("empty",)),
    ("NaN", IMAGE, {"image": with_nan(images, 4)}, ("'image'", "NaN or infinity (1 of 1,152 values", "sample 4")),
    ("infinity", IMAGE, {"image": with_nan(images, 2, np.inf)}, ("NaN or infinity", "sample 2")),
    ("odd rows for a fixed batch", PAIRS, {"x": np.zeros((5, 4), np.float32)}, ("5 rows", "takes 2 at once")),
    ("labels too few", IMAGE, {"image": images, "labels": np.arange(5)}, ("5 entries for 6 samples",)),
    ("label too high", IMAGE, {"image": images, "labels": np.arange(6) + 5}, ("class 10", "'logits' are 0 to 9")),
    ("label negative", IMAGE, {"image": images, "labels": np.arange(6) - 1}, ("class -1", "0 to 9")),
    ("labels of another shape", IMAGE, {"image": images, "labels": np.ones((6, 7))},
     ("[6,7]", "integer classes of shape [6]", "'logits'", "[6,10]")),
    ("labels as texts", IMAGE, {"image": images, "labels": np.array(["cat"] * 6)}, ("integer classes",)),
    ("labels with NaN", IMAGE, {"image": images, "labels": with_nan(np.ones((6, 10)), 3)}, ("'labels'", "finite")),
    ("labels of which output", TOKENS, {"input_ids": ids, "attention_mask": ids, "labels": np.arange(6)},
     ("'labels' names no output", "'labels.embedding'", "'labels.score'")),
    ("labels of a misspelt output", TOKENS, {"input_ids": ids, "attention_mask": ids, "labels.scor": np.ones(6)},
     ("did you mean 'labels.score'?",)),
    ("labels of a fixed batch", PAIRS, {"x": np.zeros((6, 4), np.float32), "labels": np.arange(3)},
     ("first axis dynamic",)),
]  # fmt: skip


def write(path: Path, arrays: dict[str, Any]) -> Path:
    with path.open("wb") as file:
        np.savez_compressed(file, allow_pickle=True, **arrays)
    return path


@pytest.mark.parametrize(("signature", "arrays", "count"), [case[1:] for case in GOOD], ids=[case[0] for case in GOOD])
def test_good_samples_are_counted(signature, arrays, count, tmp_path):
    assert samples.check(write(tmp_path / "s.npz", arrays), signature) == count


@pytest.mark.parametrize(("signature", "arrays", "says"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_bad_samples_are_refused_with_what_would_be_right(signature, arrays, says, tmp_path):
    with pytest.raises(InvalidSamples) as refused:
        samples.check(write(tmp_path / "s.npz", arrays), signature)
    for words in says:
        assert words in str(refused.value)


def zip_of(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return out.getvalue()


def npy(array: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


def header_of(shape: tuple[int, ...]) -> bytes:
    out = io.BytesIO()
    np.lib.format.write_array_header_1_0(out, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return out.getvalue()


FILES: list[tuple[str, bytes, tuple[str, ...]]] = [
    ("empty", b"", ("empty", "numpy.savez('samples.npz', image=...)")),
    ("text", b"not samples", ("no .npz file", "numpy.savez")),
    ("pickle", pickle.dumps({"image": 1}), ("a pickle", "numpy.savez")),
    ("single array", npy(images), ("single array", "numpy.savez('samples.npz', image=...)")),
    ("cut short", zip_of({"image.npy": npy(images)})[:-40], ("damaged or cut short",)),
    ("pickle inside", zip_of({"image.npy": pickle.dumps({})}), ("'image'", "no NumPy array")),
    ("other files inside", zip_of({"image.txt": b"x"}), ("'image.txt'", "no array")),
    (
        "declares more than it holds",
        zip_of({"image.npy": header_of((10**6, 3, 8, 8))}),
        ("768,000,000 bytes", "damaged"),
    ),
    ("declares 10^18", zip_of({"image.npy": header_of((10**18, 10**18))}), ("damaged",)),
    ("negative shape", zip_of({"image.npy": header_of((-1, 3, 8, 8)) + bytes(768)}), ("'image'",)),
    ("header that is code", zip_of({"image.npy": b"\x93NUMPY\x01\x00\x0e\x00__import__(1)\n"}), ("no NumPy array",)),
    ("many arrays", zip_of({f"a{i}.npy": b"" for i in range(1001)}), ("1,001 files",)),
]


@pytest.mark.parametrize(("data", "says"), [case[1:] for case in FILES], ids=[case[0] for case in FILES])
def test_files_that_are_no_samples_are_refused(data, says, tmp_path):
    (tmp_path / "s.npz").write_bytes(data)
    with pytest.raises(InvalidSamples) as refused:
        samples.check(tmp_path / "s.npz", IMAGE)
    for words in says:
        assert words in str(refused.value)


def test_an_npz_that_unpacks_to_more_than_the_limit_is_not_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(samples, "MOST_BYTES", 1 << 20)
    with pytest.raises(InvalidSamples, match="unpacks to 4,"):
        samples.check(write(tmp_path / "s.npz", {"image": np.zeros((1 << 20,), np.float32)}), IMAGE)


def test_masks_that_pack_a_thousand_times_are_no_bomb(tmp_path):
    mask = np.ones((2000, 512), np.int64)
    file = write(tmp_path / "s.npz", {"input_ids": mask, "attention_mask": mask})
    assert file.stat().st_size * 100 < 2 * mask.nbytes
    assert samples.check(file, TOKENS) == 2000


def test_the_check_runs_in_a_child_and_counts(tmp_path):
    file = zoo.npz(tmp_path / "s.npz", image=images, labels=np.arange(6))
    assert check_samples(file, IMAGE, tmp_path / "work") == 6


def test_what_the_child_refuses_reaches_the_caller(tmp_path):
    file = zoo.npz(tmp_path / "s.npz", image=images.astype(float))
    with pytest.raises(InvalidSamples, match=r"astype\('float32'\)"):
        check_samples(file, IMAGE, tmp_path / "work")


def test_samples_that_are_a_link_are_not_followed(tmp_path):
    zoo.npz(tmp_path / "s.npz", image=images)
    (tmp_path / "link.npz").symlink_to("s.npz")
    with pytest.raises(InvalidSamples, match="plain file"):
        check_samples(tmp_path / "link.npz", IMAGE, tmp_path / "work")
