"""A way to repeat by hand what was done for a variant: one shell script, kept beside its artifact."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict

import msgspec

from compilers.stepkey import Step
from model_store.entities import Digest
from model_store.sandbox import Limits


def reproduce_script(title: str, trail: Sequence[tuple[Step, Mapping[str, Digest]]]) -> bytes:
    """A shell script that repeats the steps by hand, each on what the one before it made, confined as it was.

    Of every file it says whether the sha256 is the same as then; where one differs it ends with 1, after all steps.
    """
    limits = msgspec.json.encode(asdict(Limits())).decode()
    lines = [
        "#!/bin/sh",
        f"# Repeats how {_comment(title)} was made and judged, step by step, each confined as it was.",
        "#     sh reproduce.sh DATA_FOLDER [WORK_FOLDER]",
        "# DATA_FOLDER is the gateway's; `python` must be one that has forgeway. Every step leaves answer.json;",
        "# of every file it says whether its sha256 is the same as then, and where one is not, it ends with 1.",
        "set -eu",
        "differ=0",
        'data=$(realpath "$1") work=$(realpath "${2:-.}")',
        """blob() { python -m model_store.unpack "$data/blobs" "$1"; }""",
        """same() {""",
        """  if [ "$(sha256sum < "$1")" = "$2  -" ]; then echo "same: $PWD/$1 $2"; return; fi""",
        """  echo "DIFFERS: $PWD/$1, was $2" >&2; differ=1""",
        """}""",
    ]
    made: dict[Digest, str] = {}
    for number, (step, files) in enumerate(trail, start=1):
        folder = f"{number}-{step.name}"
        named = " ".join(
            shlex.quote(name) + "=" + made.get(digest, f'"$(blob {digest})"') for name, digest in step.inputs.items()
        )
        lines += [
            "",
            f'mkdir -p "$work/{folder}"',
            f'cd "$work/{folder}"',
            "cat > request.json <<'REQUEST'",
            msgspec.json.encode(step.params).decode(),
            "REQUEST",
            f"python -m model_store.sandbox {shlex.quote(limits)} compilers.steps {step.name} request.json {named}",
        ]
        fresh = {name: digest for name, digest in files.items() if digest not in step.inputs.values()}
        lines += [f"same {shlex.quote(name)} {digest}" for name, digest in fresh.items()]
        made |= {
            digest: f'"$work/{folder}"/{shlex.quote(name)}' for name, digest in fresh.items() if digest not in made
        }
    return "\n".join([*lines, "", "exit $differ", ""]).encode()


def _comment(text: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in text)
