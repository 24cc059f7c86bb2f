"""Plans in the walk: the reference's first, since everything is measured against it as it will serve; then the best's.

What was proven is what runs. A variant was proven in the reference's setting; where its plan wants another one the
win is proven again in that one, and where that fails the variant keeps the setting it was proven in.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import msgspec

from compilers import walk, words
from compilers.isolate import Isolation, StepFailed
from compilers.timing.measure import wins
from compilers.timing.plan import Setting
from compilers.walk import Subject
from model_store.entities import REFERENCE, Artifact, Plan, Timing, Variant, Verdict

PLANNED = 2
"""Most variants of a target that are planned: the best in one batch size or another."""
SLICE = 1 / 20
"""Of the budget, on top of it: what planning may take when everything else has used it up."""


def with_reference_plan(subject: Subject, isolation: Isolation) -> Subject:
    """The subject with the plan of the reference; without one where it could not be measured.

    Every target waits for it and none is to blame: what it takes is added to the budget.
    """
    began = isolation.clock()
    artifact = Artifact({"model.onnx": subject.version.model}, walk.REFERENCE_OPTIONS, subject.version.size_bytes)
    try:
        return replace(subject, plan=_measured(subject, artifact, walk.REFERENCE_TARGET, REFERENCE, isolation))
    except StepFailed:
        return subject
    finally:
        isolation.deadline += min(isolation.clock() - began, subject.policy.budget_seconds)


def reference_planned(subject: Subject, isolation: Isolation) -> Iterator[Variant]:
    """The published reference with the plan, unless it has it."""
    version = subject.version
    for variant in isolation.store.catalog.variants(version.name, version.version):
        if variant.id == REFERENCE and subject.plan is not None and variant.plan != subject.plan:
            yield replace(variant, plan=subject.plan)


def winners_planned(subject: Subject, isolation: Isolation) -> Iterator[Variant]:
    """The best published variants of this target, each with its plan and, in another setting, with its proof anew."""
    version = subject.version
    isolation.deadline += subject.policy.budget_seconds * SLICE
    published = isolation.store.catalog.variants(version.name, version.version)
    for variant in best([each for each in published if each.target == subject.target and each.id != REFERENCE]):
        if variant.artifact is None or (variant.plan is not None and variant.plan.curve):
            continue
        try:
            plan = _measured(subject, _built(variant.artifact), variant.target, variant.id, isolation)
            yield _proven(subject, variant, plan, isolation)
        except StepFailed as exc:
            isolation.tell("plan", "log", f"{variant.id}: keeps its plan: {exc}", {"subject": variant.id})


def best(variants: Sequence[Variant]) -> list[Variant]:
    """The serving variants that are the fastest in one batch size or another, proven there; the surest first."""
    won: dict[str, Variant] = {}
    serving = [each for each in variants if each.verdict is Verdict.SERVING and each.evidence is not None]
    timed = [(timing, each) for each in serving if each.evidence for timing in wins(each.evidence.timings)]
    for rows in sorted({timing.rows for timing, _ in timed}):
        fastest = max((pair for pair in timed if pair[0].rows == rows), key=lambda pair: pair[0].speedup)
        won[fastest[1].id] = fastest[1]
    return list(won.values())[:PLANNED]


def _measured(subject: Subject, artifact: Artifact, target: str, name: str, isolation: Isolation) -> Plan:
    done = isolation.run(walk.plan(subject, artifact, target), name)
    return replace(msgspec.convert(done.result["plan"], Plan), max_rows=subject.max_rows)


def _proven(subject: Subject, variant: Variant, plan: Plan, isolation: Isolation) -> Variant:
    """The variant with its plan. Raises StepFailed when it cannot be timed in another setting."""
    assert variant.artifact is not None and variant.evidence is not None
    setting = Setting(plan.threads, plan.instances)
    if setting == subject.setting:
        return replace(variant, plan=plan)
    measured = isolation.run(walk.measure(subject, _built(variant.artifact), setting=setting), variant.id)
    timings = msgspec.convert(measured.result["timings"], tuple[Timing, ...])
    before = variant.evidence.timings
    if not wins(timings) or len(wins(timings)) < len(wins(before)):
        kept = subject.setting
        lost = f"{setting.words} wins in fewer batch sizes against the reference, so it stays with {kept.words}"
        # Where rows stop to pay was measured in the other setting: it says nothing of this one.
        return replace(
            variant,
            plan=replace(
                plan,
                threads=kept.threads,
                instances=kept.instances,
                buckets=(),
                padded=(),
                reason=f"{plan.reason}; {lost}",
            ),
        )
    evidence = replace(variant.evidence, timings=timings)
    told = variant.reason.replace(words.speed(before), words.speed(timings), 1)
    return replace(variant, plan=plan, evidence=evidence, reason=told)


def _built(artifact: Artifact) -> Artifact:
    """The artifact as it was measured before, without the script that was added since."""
    return replace(artifact, files={name: file for name, file in artifact.files.items() if name != "reproduce.sh"})
