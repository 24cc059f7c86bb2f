"""The demo: one real model through the whole product, on this machine, in a couple of minutes, with the proof printed.

Start a gateway, register the digits network with its samples, ask it questions while it is compiled, then show what
was tried, what was proven, what answers, how accurate it is on digits nobody has seen, and what the metrics say.
Anything that is not as promised ends it with `DemoFailed`.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from gateway.client import Client, ClientError
from gateway.client.events import Event
from gateway.demo import digits, report
from gateway.demo.asking import Account, Asking, first_answer, near
from gateway.demo.process import GatewayFailed, GatewayProcess

NAME = "digits"
LEAST_ACCURACY, MOST_DROP = 0.985, 0.01
MIB = 1 << 20


class DemoFailed(AssertionError):
    """Something the product promises did not hold; the message says what."""


def run() -> int:
    """Walk; the exit code: 0, or 1 with what went wrong on stderr. Results go to stdout, progress to stderr."""
    out, progress = Console(), Console(stderr=True)
    started = time.monotonic()
    try:
        with tempfile.TemporaryDirectory(prefix="forgeway-demo-") as folder:
            walk(Path(folder), out, progress)
    except (DemoFailed, GatewayFailed, ClientError) as exc:
        report.line(progress, f"\nThe demo failed: {exc}")
        return 1
    report.line(out, f"\nEverything held. {time.monotonic() - started:.0f} s, start to stop.")
    return 0


def walk(folder: Path, out: Console, progress: Console) -> None:
    data = digits.load()
    samples = folder / "samples.npz"
    np.savez(samples, image=data.training.images, labels=data.training.labels)
    with GatewayProcess(folder / "data") as gateway, Client(gateway.url) as client:
        report.section(out, "1. A gateway")
        report.line(out, f"forgeway serve at {gateway.url}, ready in {gateway.ready_s:.2f} s")
        version = register(client, samples, out)
        compiled, account = compile_while_asked(gateway, client, version, data.held_out.images, progress)
        show_compiled(compiled, account, out)
        show_accuracy(client, data.held_out, out)
        show_routes(client, data.held_out.images, out)
        show_metrics(client, out)
        report.line(out, f"gateway and runners use {gateway.pss_bytes() / MIB:.0f} MiB (PSS)")
    report.line(out, "stopped cleanly")


def register(client: Client, samples: Path, out: Console) -> str:
    started = time.monotonic()
    registered = client.register(NAME, digits.MODEL, samples=samples)
    version: str = registered["version"]
    image = np.zeros((1, 1, digits.SIDE, digits.SIDE), np.float32)
    answer = first_answer(client.url, NAME, {"image": image})
    seconds = time.monotonic() - started
    facts = client.version(NAME, version)
    report.section(out, "2. A registered model")
    report.line(out, f"{NAME} version {version}: {report.size(digits.MODEL.stat().st_size)} of ONNX")
    for kind in ("inputs", "outputs"):
        for spec in facts["signature"][kind]:
            report.line(out, f"  {kind[:-1]} {spec['name']} {spec['datatype']} {spec['shape']}")
    report.line(out, f"first answer {seconds:.2f} s after the upload began, from variant {answer!r}")
    return version


def compile_while_asked(
    gateway: GatewayProcess, client: Client, version: str, images: np.ndarray, progress: Console
) -> tuple[Mapping[str, Any], Account]:
    """Wait for every job while questions keep coming: none may fail, none may be answered wrongly."""
    questions = [{"image": image[None]} for image in images]
    expected = [{"logits": row[None]} for row in predict(client, images, "reference")[0]]
    with Asking(gateway.url, NAME, questions, near(expected), pause_s=0.05) as account:
        with progress.status("compiling ...") as status:

            def told(event: Event) -> None:
                text = f"{event.step} {event.status} {event.text}".rstrip()
                if progress.is_terminal:
                    status.update(f"compiling: {text}")
                elif event.status in ("done", "failed"):
                    report.line(progress, f"  {text}")

            compiled = client.wait(NAME, version, timeout=600, on_event=told)
        time.sleep(1.0)  # what was published last takes part too
    expect(compiled["status"] == "ready", f"the version ended {compiled['status']}: {compiled.get('reason')}")
    expect(not account.failures, f"{len(account.failures)} predictions failed while compiling: {account.failures[:3]}")
    expect(not account.wrong, f"{len(account.wrong)} answers were wrong while compiling: {account.wrong[:3]}")
    expect(account.asked > 0, "nothing was asked while compiling")
    return compiled, account


def show_compiled(compiled: Mapping[str, Any], account: Account, out: Console) -> None:
    variants = compiled["variants"]
    report.section(out, "3. What it was compiled into")
    report.variants(out, variants)
    expect(any(variant["id"] == "reference" for variant in variants), "the reference variant is missing")
    expect(len(variants) > 1, "no variant but the reference was tried")
    expect(all(variant["reason"] for variant in variants), "a variant has no reason")
    told = ", ".join(f"{count} by {variant}" for variant, count in account.answers.most_common())
    report.line(out, f"meanwhile {account.asked} questions were answered ({told}): 0 failed, 0 wrong")


def show_accuracy(client: Client, held_out: digits.Images, out: Console) -> None:
    report.section(out, f"4. Accuracy on the {len(held_out.labels)} held-out digits, through the endpoint")
    reached: dict[str, float] = {}
    rows = []
    for asked, pinned in (("the reference, pinned", "reference"), ("whatever serves", None)):
        logits, answered = predict(client, held_out.images, pinned)
        reached[asked] = float((logits.argmax(1) == held_out.labels).mean())
        rows.append((asked, f"{reached[asked]:.2%}", ", ".join(sorted(answered))))
    report.table(out, ("asked", "right", "answered by"), rows)
    reference, served = reached.values()
    expect(reference >= LEAST_ACCURACY, f"the reference reads only {reference:.2%} of the held-out digits")
    expect(served >= reference - MOST_DROP, f"the served variants lose {reference - served:.2%} of accuracy")


def predict(client: Client, images: np.ndarray, variant: str | None, rows: int = 32) -> tuple[np.ndarray, Counter[str]]:
    """Logits of every image, asked `rows` at a time, and which variants answered."""
    logits: list[np.ndarray] = []
    answered: Counter[str] = Counter()
    for first in range(0, len(images), rows):
        answer = client.predict(NAME, {"image": images[first : first + rows]}, variant=variant)
        answered[answer.variant or "unnamed"] += 1
        logits.append(answer["logits"])
    return np.concatenate(logits), answered


def show_routes(client: Client, images: np.ndarray, out: Console) -> None:
    report.section(out, "5. Which variant answers, and why")
    rows = []
    for count in (1, 32):
        answered = client.predict(NAME, {"image": images[:count]}).variant
        route = client.route(NAME, rows=count)
        rows.append((str(count), answered or "-", route["why"]))
        expect(bool(answered), "an answer does not name its variant")
        expect(
            answered == route["variant"], f"{count} rows: {answered} answered, but the route says {route['variant']}"
        )
    report.table(out, ("rows", "answered by", "why"), rows)


def show_metrics(client: Client, out: Console) -> None:
    rows = report.metric_rows(client.metrics(), NAME)
    report.section(out, "6. What a scrape of /metrics says of the latency")
    report.table(out, report.METRIC_HEADINGS, rows)
    expect(bool(rows), "no request duration was found in /metrics")
    expect(any(row[0] == "reference" for row in rows), "the reference's answers are not in /metrics")


def expect(held: bool, otherwise: str) -> None:
    if not held:
        raise DemoFailed(otherwise)


if __name__ == "__main__":
    sys.exit(run())
