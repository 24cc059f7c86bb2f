"""The models that are measured: two small, two of the size people serve; built in code or committed, none fetched."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from benchmarks import networks
from gateway.demo import digits
from tests import zoo

SEQUENCE, VOCABULARY = 128, 8000


@dataclass(frozen=True)
class Subject:
    """`samples`: what it is registered with. `row`: the inputs of a one-row request. `note`: what to know of it."""

    name: str
    model: bytes
    samples: Mapping[str, np.ndarray]
    row: Mapping[str, np.ndarray]
    policy: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""


def tiny() -> Subject:
    """An MLP 64-128-10 that runs in microseconds: what is measured is everything but the model."""
    model = zoo.mlp()
    return _subject("tiny", model, zoo.random_inputs(model, 1000, seed=1), note="MLP 64-128-10: pure overhead")


def digits_network() -> Subject:
    data = digits.load()
    samples = {"image": data.training.images, "labels": data.training.labels}
    row = {"image": data.held_out.images[:1]}
    note = "the demo's residual network, 32x32 images, trained"
    return Subject("digits", digits.MODEL.read_bytes(), samples, row, note=note)


def resnet50() -> Subject:
    """ResNet-50 (He et al. 2015, stride in the 3x3) with random weights and fitted batch-norm statistics."""
    note = "random weights, fitted batch-norm statistics: its error means nothing, so its gate is cosine 0.97 alone"
    model, images = networks.resnet50(seed=0), networks.smooth_images(96, seed=1)
    return _subject("resnet50", model, {"image": images}, {"gate": {"cosine": 0.97}}, note)


def mobilenet() -> Subject:
    """MobileNetV2 (Sandler et al. 2018) with random weights and fitted batch-norm statistics."""
    note = "random weights, fitted batch-norm statistics: its error means nothing, so its gate is cosine 0.97 alone"
    model, images = networks.mobilenet_v2(seed=0), networks.smooth_images(96, seed=1)
    return _subject("mobilenet", model, {"image": images}, {"gate": {"cosine": 0.97}}, note)


def encoder() -> Subject:
    """A BERT-like encoder: 6 layers, 384 wide, 12 heads, 128 tokens, every row with padding of its own."""
    model = zoo.transformer(layers=6, width=384, heads=12, vocab=VOCABULARY)
    random = np.random.default_rng(2)
    lengths = random.integers(16, SEQUENCE + 1, 256)
    mask = (np.arange(SEQUENCE) < lengths[:, None]).astype(np.int64)
    ids = random.integers(1, VOCABULARY, mask.shape) * mask
    note = "BERT-like encoder, 6 layers, 384 wide, 12 heads, sequence 128, random weights"
    return _subject("encoder", model, {"input_ids": ids, "attention_mask": mask}, note=note)


SUBJECTS: dict[str, Callable[[], Subject]] = {
    "tiny": tiny,
    "digits": digits_network,
    "resnet50": resnet50,
    "mobilenet": mobilenet,
    "encoder": encoder,
}


def from_files(text: str) -> Subject:
    """NAME=MODEL.onnx,SAMPLES.npz: a subject of one's own; its first sample is the row that is asked."""
    name, _, files = text.partition("=")
    model, _, samples = files.partition(",")
    if not samples:
        raise ValueError(f"{text!r} is not NAME=MODEL.onnx,SAMPLES.npz")
    content = Path(model).read_bytes()
    names = [each.name for each in onnx.load_from_string(content).graph.input]
    with np.load(samples) as loaded:
        arrays = dict(loaded)
    row = {each: arrays[each][:1] for each in names if each in arrays}
    return Subject(name, content, arrays, row, note=f"{Path(model).name}, given with the command")


def _subject(
    name: str,
    model: onnx.ModelProto,
    samples: Mapping[str, np.ndarray],
    policy: Mapping[str, Any] | None = None,
    note: str = "",
) -> Subject:
    row = {key: value[:1] for key, value in samples.items()}
    return Subject(name, model.SerializeToString(), samples, row, policy or {}, note)
