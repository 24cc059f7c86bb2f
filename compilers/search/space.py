"""Which recipes a search may try: for each lossy candidate of a target, the knobs that can change it.

A space is made of what the model and the machine are (operator mix, CPU features), out of the parameters the passes
have. A *choice* takes one value of every knob; the first value of each is the candidate's own, so the first choice is
the candidate itself. `ladder` holds the choices that rescue or speed up most models, in the order to try them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from compilers import hardware
from compilers.passes import kinds, takes_samples
from compilers.recipe import SMOOTH, PassSpec, Recipe
from model_store.policy import Policy

Choice = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Knob:
    """`where`: a parameter of the quantizing pass, of a SmoothQuant pass before it, or an option of the target.

    `word`: what a value adds to the name of a recipe ({} stands for it); values that are the first add nothing.
    """

    name: str
    values: tuple[Any, ...]
    word: str
    where: Literal["quantizer", "smooth", "option"] = "quantizer"


@dataclass(frozen=True, slots=True)
class Space:
    """The knobs around one candidate, `base`, whose last pass quantizes.

    casts: no pass of it lowers the precision, its target does, of everything. There is nothing to choose then but which
    nodes stay in float, and with any of them a pass casts the others, node by node.
    """

    base: Recipe
    knobs: tuple[Knob, ...]
    ladder: tuple[Choice, ...]
    casts: bool = False

    @property
    def size(self) -> int:
        return math.prod(len(knob.values) for knob in self.knobs)

    @property
    def first(self) -> dict[str, Any]:
        """The candidate itself."""
        return {knob.name: knob.values[0] for knob in self.knobs}

    def whole(self, part: Choice) -> dict[str, Any]:
        """A choice of every knob, those not named as the candidate has them."""
        return self.first | dict(part)

    def holds(self, choice: Choice) -> bool:
        """True when it is a choice of this space (one of another machine, or of an older version, may not be)."""
        values = {knob.name: knob.values for knob in self.knobs}
        return choice.keys() == values.keys() and all(choice[name] in values[name] for name in values)

    def recipe(self, choice: Choice, without: Sequence[str] = ()) -> Recipe:
        """The recipe of a choice, the nodes `without` left in float."""
        if self.casts:
            return self._cast(without) if without else self.base
        *before, quantizer = self.base.passes
        params, options, words = dict(quantizer.params), dict(self.base.options), [self.base.name]
        for knob in self.knobs:
            value = choice[knob.name]
            if value != knob.values[0]:
                words.append(knob.word.format(value))
            if value is None:
                continue
            if knob.where == "smooth":
                convolutions = {"convolutions": True} if knob.name == "smooth_all" else {}
                before = [spec for spec in before if spec.name != "smooth-quant"]
                before.append(PassSpec("smooth-quant", {"alpha": value} | convolutions))
            elif knob.where == "option":
                options[knob.name] = value
            elif value != knob.values[0] or knob.name in params:
                params |= _parameters(knob.name, value)
        if without:
            params["exclude"] = sorted(without)
            words.append(f"but{len(without)}")
        passes = (*before, PassSpec(quantizer.name, params))
        techniques = self.base.techniques
        if options.get("inference_precision", "f32") != "f32":
            techniques = (*techniques, "mixed-precision")
        return replace(
            self.base,
            name="-".join(words),
            passes=passes,
            options=options,
            techniques=techniques,
            calibrated=any(takes_samples(spec) for spec in passes),
        )

    def _cast(self, without: Sequence[str]) -> Recipe:
        cast = PassSpec("cast", {"precision": self.base.precision, "keep": sorted(without)})
        return replace(
            self.base,
            name=f"{self.base.name}-but{len(without)}",
            passes=(*self.base.passes, cast),
            options={**self.base.options, "inference_precision": "f32"},  # the graph says what is lower
            calibrated=takes_samples(cast),
        )

    def prefix(self, choice: Choice) -> Recipe:
        """What happens before the precision is lowered: the float model whose nodes are ranked."""
        whole = self.recipe(choice)
        passes = whole.passes if self.casts else whole.passes[:-1]
        return replace(whole, passes=passes, calibrated=any(takes_samples(spec) for spec in passes))


def space_of(base: Recipe, operators: Mapping[str, int], policy: Policy) -> Space | None:
    """The space around a candidate; None where there is nothing to choose (fp32)."""
    make = _SPACES.get(base.passes[-1].name) if base.passes else None
    if make is None:
        return Space(base, (), (), casts=True) if base.precision in ("bf16", "fp16") else None
    allowed = None if policy.techniques is None else frozenset(policy.techniques)
    return make(base, operators, allowed is None or "mixed-precision" in allowed)


def _static(base: Recipe, operators: Mapping[str, int], mixed: bool) -> Space:
    if kinds.attend(operators):
        return _smoothed(base)
    knobs = (
        Knob("calibrator", ("minmax", "percentile-99.99", "percentile-99.999", "entropy", "mse"), "{}"),
        Knob("smooth_all", (None, 0.5, 0.75, 0.9), "smooth{}", "smooth"),
        Knob("rounding", ("nearest", "gptq"), "{}"),
        Knob("bias_correction", (False, True), "bias"),
        Knob("symmetric", (False, True), "symmetric"),
    )
    ladder: tuple[Choice, ...] = (
        {"smooth_all": 0.5},
        {"calibrator": "percentile-99.999"},
        {"calibrator": "mse", "bias_correction": True},
        {"smooth_all": 0.75, "rounding": "gptq", "bias_correction": True},
        {"calibrator": "percentile-99.99", "smooth_all": 0.5, "bias_correction": True},
    )
    return Space(base, knobs, ladder)


def _smoothed(base: Recipe) -> Space:
    """Static int8 of a transformer, whose candidate is smoothed already.

    A sentence encoder keeps 17.5 dB as it is, and 20.7, 22.1 and 23.7 dB at 0.6, 0.65 and 0.7.
    """
    knobs = (
        Knob("smooth", (SMOOTH.params["alpha"], 0.65, 0.75, 0.8, 0.85, 0.5), "smooth{}", "smooth"),
        Knob("calibrator", ("minmax", "percentile-99.999", "mse"), "{}"),
        Knob("rounding", ("nearest", "gptq"), "{}"),
        Knob("bias_correction", (False, True), "bias"),
    )
    ladder: tuple[Choice, ...] = (
        {"smooth": 0.75},
        {"smooth": 0.65},
        {"smooth": 0.8},
        {"smooth": 0.75, "calibrator": "percentile-99.999"},
        {"smooth": 0.75, "rounding": "gptq", "bias_correction": True},
    )
    return Space(base, knobs, ladder)


def _dynamic(base: Recipe, operators: Mapping[str, int], mixed: bool) -> Space:
    knobs = (
        Knob("smooth", (None, 0.65, 0.7, 0.75, 0.6, 0.85, 0.5), "smooth{}", "smooth"),
        Knob("per_channel", (True, False), "per-tensor"),
    )
    return Space(base, knobs, ({"smooth": 0.65}, {"smooth": 0.7}, {"smooth": 0.75}, {"smooth": 0.5}))


def _nncf(base: Recipe, operators: Mapping[str, int], mixed: bool) -> Space:
    knobs = [
        Knob("preset", ("mixed", "performance"), "{}"),
        Knob("bias", ("fast", "full", "none"), "{}-bias"),
    ]
    ladder: list[Choice] = [{"preset": "performance"}, {"bias": "full"}]
    if "MatMul" in operators or "Gemm" in operators:
        knobs.append(Knob("smooth_alpha", (None, 0.5, 0.75, 0.9), "smooth{}"))
        ladder.insert(0, {"smooth_alpha": 0.5})
    if not kinds.attend(operators):
        knobs.append(Knob("smooth_all", (None, 0.5, 0.75, 0.9), "presmooth{}", "smooth"))
        ladder.insert(0, {"smooth_all": 0.5})
    if mixed and hardware.has_bf16():
        knobs.append(Knob("inference_precision", ("f32", "bf16"), "rest-{}", "option"))
        ladder.insert(0, {"inference_precision": "bf16"})
    return Space(base, tuple(knobs), tuple(ladder))


def _weights(base: Recipe, operators: Mapping[str, int], mixed: bool) -> Space:
    knobs: tuple[Knob, ...] = (
        Knob("bits", (8, 4), "{}bit"),
        Knob("block_size", (32, 64, 128), "block{}"),
        Knob("symmetric", (True, False), "asymmetric"),
    )
    ladder: tuple[Choice, ...] = ({"bits": 4}, {"bits": 4, "symmetric": False}, {"block_size": 128})
    if base.passes[-1].params.get("runtime") == "onnxruntime":
        knobs = (*knobs, Knob("rounding", ("nearest", "gptq"), "{}"))
        ladder = ({"bits": 4, "symmetric": False, "rounding": "gptq"}, {"bits": 4, "rounding": "gptq"}, *ladder)
    return Space(base, knobs, ladder)


_SPACES = {"int8-static": _static, "int8-dynamic": _dynamic, "int8-nncf": _nncf, "weight-only": _weights}


def _parameters(knob: str, value: Any) -> dict[str, Any]:
    """A knob's value as the parameters of the pass."""
    if knob == "calibrator" and str(value).startswith("percentile-"):
        return {"calibrator": "percentile", "percentile": float(str(value).removeprefix("percentile-"))}
    if knob == "bias":
        return {"fast_bias_correction": value == "fast", "bias_correction": value != "none"}
    return {knob: value}
