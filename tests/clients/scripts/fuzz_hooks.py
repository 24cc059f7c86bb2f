"""Hooks of schemathesis (SCHEMATHESIS_HOOKS): steer some requests to models that exist, judge and count the answers.

Numbers go to FORGEWAY_FUZZ_COUNTS when the run ends: answers by status, and the slowest in seconds.
"""

import atexit
import json
import os
import threading
from collections import Counter
from pathlib import Path

import schemathesis

NAMES = ("simple", "identity_fp32", "simple_identity", "come_and_go")
ALLOWED = (501, 503)
"""Refusals that are meant: not supported, not now. That a load failed is 500 in Triton, and so it is here."""

statuses: Counter[int] = Counter()
slowest = [0.0, ""]
_lock = threading.Lock()


@schemathesis.hook
def map_path_parameters(context, path_parameters):
    """Half of the names are those of real models, or no request would ever pass the first check."""
    if path_parameters is None:
        return path_parameters
    name, version = path_parameters.get("name"), path_parameters.get("version")
    luck = sum(map(ord, str(name) + str(version)))
    if name is not None and luck % 2:
        path_parameters["name"] = NAMES[luck // 2 % len(NAMES)]
    if version is not None and luck % 3:
        path_parameters["version"] = 1
    return path_parameters


@schemathesis.hook
def map_body(context, body):
    """Some of the tensors carry the names that a model knows."""
    inputs = body.get("inputs") if isinstance(body, dict) else None
    if isinstance(inputs, list):
        for place, tensor in enumerate(inputs[:2]):
            if isinstance(tensor, dict) and len(str(tensor)) % 2:
                tensor["name"] = f"INPUT{place}"
    return body


@schemathesis.hook
def before_call(context, case, kwargs):
    """What takes a model away takes the one that is there for it: the others have to be met by the rest."""
    removing = case.method.upper() == "DELETE" or case.path.endswith("/unload")
    if removing and (case.path_parameters or {}).get("name") in NAMES:
        case.path_parameters["name"] = NAMES[-1]


@schemathesis.hook
def after_call(context, case, response):
    with _lock:
        statuses[response.status_code] += 1
        if response.elapsed > slowest[0]:
            slowest[:] = [response.elapsed, f"{case.method} {case.path}"]


@schemathesis.check
def answers_in_words(ctx, response, case):
    """No 5xx but the deliberate ones; every refusal is `{"error": "..."}` as clients parse it."""
    meant = response.status_code in ALLOWED or (
        response.status_code == 500 and case.path.endswith("/load") and "failed to load '" in response.text
    )
    assert response.status_code < 500 or meant, f"{response.status_code}: {response.text}"
    if response.status_code >= 400 and case.method != "HEAD":
        kind = response.headers.get("content-type", [""])[0]
        assert kind == "application/json", f"refusal {response.status_code} is {kind!r}"
        words = response.json()
        assert isinstance(words, dict) and isinstance(words.get("error"), str) and words["error"], words


@atexit.register
def _write() -> None:
    facts = {"statuses": statuses, "cases": sum(statuses.values()), "slowest_s": slowest[0], "slowest": slowest[1]}
    Path(os.environ["FORGEWAY_FUZZ_COUNTS"]).write_text(json.dumps(facts))
