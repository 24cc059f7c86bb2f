"""The measuring tools measure: ratios are right, errors are seen, the built models are what they claim."""

from __future__ import annotations

import os

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import onnx
import onnxruntime
import pytest

from benchmarks import load, networks
from benchmarks.figures import Figures, Spread, ratios


@contextmanager
def server(status: int) -> Iterator[int]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(status)
            self.send_header("content-length", "3")
            self.send_header("forgeway-variant", "reference")
            self.end_headers()
            self.wfile.write(b"yes")

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running.server_address[1]
        running.shutdown()


@pytest.mark.parametrize(("status", "errors"), [(200, False), (503, True)])
def test_load_counts_answers_and_sees_refusals(status: int, errors: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "WARM_UP_S", 0.05)
    with server(status) as port:
        request = b"POST /x HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\nok"
        figures = asyncio.run(load.run(port, 2, 0.2, request))
    assert figures.count > 2
    assert (figures.errors > 0) == errors
    assert list(figures.variants) == ["reference"]
    assert 0 < figures.p50_s <= figures.p99_s < 0.2


@pytest.mark.parametrize("first", range(4))
def test_rate_of_answers_that_come_in_waves_counts_whole_waves(first: int) -> None:
    """Four connections answered together every 0.1 s are 40 answers a second, wherever the window begins."""
    moments = [0.1 * wave + 0.001 * place for wave in range(6) for place in range(4)]
    assert load.rate(moments[first:], 4) == pytest.approx(40, rel=1e-6)


def test_ratios_are_taken_round_by_round() -> None:
    def at(rate: float) -> Figures:
        return Figures(rate, 1 / rate, 1 / rate, 1 / rate, 100)

    drifting_above, drifting_below = [at(200), at(20), at(100)], [at(100), at(10), at(50)]
    assert ratios(drifting_above, drifting_below) == Spread(2.0, 2.0, 2.0)
    assert Spread.over([3.0, 1.0, 2.0]).text(".1f") == "2.0 (1.0-3.0)"


def test_too_few_answers_are_not_figures() -> None:
    with pytest.raises(ValueError, match="too few"):
        Figures.of([0.1], rate=1.0)


@pytest.mark.parametrize(("network", "size_bytes"), [(networks.resnet50, 102e6), (networks.mobilenet_v2, 14e6)])
def test_networks_have_fitted_statistics_so_their_activations_stay_sane(
    network: Callable[[int], onnx.ModelProto], size_bytes: float
) -> None:
    model = network(0).SerializeToString()
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = onnxruntime.InferenceSession(model, options, ["CPUExecutionProvider"])
    (logits,) = session.run(None, {"image": networks.smooth_images(2, seed=99)})
    assert logits.shape == (2, 1000)
    assert np.isfinite(logits).all()
    assert 0.1 < logits.std() < 10
    assert len(model) == pytest.approx(size_bytes, rel=0.05)
