"""Recipes as data: which passes in which order with which parameters, and which are worth trying for a model.

A recipe's digest covers the sources of its passes, so editing a pass makes every variant that went through it new.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from compilers import hardware
from compilers.passes import kinds, source_digest

if TYPE_CHECKING:
    from model_store.policy import Policy

Precision = Literal["f32", "fp16", "bf16", "int8"]


@dataclass(frozen=True, slots=True)
class PassSpec:
    """One pass by its name in the table, with its constructor's arguments (JSON values; calibration comes later)."""

    name: str
    params: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Recipe:
    """`options` go to the target; `techniques` are the policy's words for what was done to the model.

    lossless: the answers equal the reference's but for the order of additions. calibrated: it needs samples.
    """

    name: str
    passes: tuple[PassSpec, ...]
    options: Mapping[str, Any]
    techniques: tuple[str, ...]
    lossless: bool
    calibrated: bool
    precision: Precision

    def digest(self) -> str:
        """sha256 of everything in the recipe that can change its result, its passes' sources included."""
        facts = asdict(self) | {"sources": [source_digest(spec.name) for spec in self.passes]}
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


TIDY = (PassSpec("clean-up"), PassSpec("fold-constants"))
FOLD = PassSpec("fold-batch-norm")
MODERN = PassSpec("raise-opset")
SMOOTH = PassSpec("smooth-quant", {"alpha": 0.7})
"""Where a search for the alpha of a transformer in int8 begins (see compilers.search.space)."""
LOG = Recipe(
    "log",
    (*TIDY, FOLD, PassSpec("log-quantize")),
    {"precision": "f32"},
    ("fusion", "log"),
    lossless=False,
    calibrated=False,
    precision="int8",  # what its gate asks: it computes in f32, but its weights are as coarse
)
"""No faster than its target's f32, and a fraction of its bytes once packed."""


def candidates(target: str, operators: Mapping[str, int], policy: Policy) -> tuple[Recipe, ...]:
    """What is worth trying for a model with these operators on `target`, the surest first; nothing where nothing is.

    `policy.techniques` allows: without `fusion` a recipe keeps only the passes its own technique cannot do without.
    """
    if policy.targets is not None and target not in policy.targets:
        return ()
    allowed = None if policy.techniques is None else frozenset(policy.techniques)
    offered = {"ort-cpu": _ort_cpu, "openvino-cpu": _openvino_cpu}.get(target, _nothing)(_Model(operators))
    if _for_weights(policy) and _Model(operators).quantizable and _Model(operators).products:
        offered += _weights(target)
    if _for_storage(policy) and _Model(operators).quantizable:
        offered.append(LOG)
    return tuple(_within(recipe, allowed) for recipe in offered if allowed is None or _own(recipe) <= allowed)


def idle_techniques(target: str, recipes: Sequence[Recipe], policy: Policy) -> tuple[str, ...]:
    """Words of the policy that find nothing to try on `target`: an owner who asked for them is told."""
    used = {word for recipe in recipes for word in recipe.techniques}
    return tuple(word for word in policy.techniques or () if word not in used)


@dataclass(frozen=True, slots=True)
class _Model:
    operators: Mapping[str, int]

    def count(self, *kinds: str) -> int:
        return sum(self.operators.get(kind, 0) for kind in kinds)

    @property
    def products(self) -> int:
        return self.count("MatMul", "Gemm", "Attention")

    @property
    def convolutions(self) -> int:
        return self.count("Conv", "ConvTranspose")

    @property
    def quantizable(self) -> bool:
        """Something to quantize, and not quantized already by its owner."""
        return bool(self.products or self.convolutions) and not kinds.quantized(self.operators)


def _ort_cpu(model: _Model) -> list[Recipe]:
    found = [_lossless("graph-opt")]
    products = model.products > model.convolutions
    range_ = {} if hardware.has_int8_dot() else {"reduce_range": True}
    if model.quantizable and products:
        found.append(_int8("int8-dynamic", PassSpec("int8-dynamic", range_), calibrated=False))
    if model.quantizable:
        static = PassSpec("int8-static", range_)
        # One range for every token loses a transformer, unless its loud channels move into the weights before.
        attends = products and kinds.attend(model.operators)
        found.append(_int8("int8-static", *([SMOOTH] if attends else []), static, calibrated=True))
    return found


def _openvino_cpu(model: _Model) -> list[Recipe]:
    found = [_lossless("f32")]
    if hardware.has_bf16() and (model.products or model.convolutions):
        found.append(
            Recipe("bf16", (*TIDY, FOLD), {"precision": "bf16"}, ("fusion", "mixed-precision"), False, False, "bf16")
        )
    if model.quantizable:
        found.append(_int8("int8", PassSpec("int8-nncf"), calibrated=True, inference_precision="f32"))
    return found


def _for_weights(policy: Policy) -> bool:
    """Whether weights in 8 or 4 bits with activations in float may be what is wanted: full int8 is faster, where it
    is right, so only whom bytes matter to, or who asks for it, waits for it to be tried."""
    asked = "weight-only" in (policy.techniques or ())
    return asked or not {"size", "memory"}.isdisjoint((policy.objective, policy.second_objective))


def _weights(target: str) -> list[Recipe]:
    runtimes = {"ort-cpu": "onnxruntime", "openvino-cpu": "openvino"}
    if target not in runtimes:
        return []
    options = {"precision": "int8"} | ({"inference_precision": "f32"} if target == "openvino-cpu" else {})
    passes = (MODERN, *TIDY, FOLD, PassSpec("weight-only", {"runtime": runtimes[target]}))
    return [Recipe("weights8", passes, options, ("fusion", "weight-only"), False, False, "int8")]


def _for_storage(policy: Policy) -> bool:
    """Whether bytes count: the owner says so, or names the technique that saves nothing else."""
    return "log" in (policy.techniques or ()) or "size" in (policy.objective, policy.second_objective)


def _nothing(_: _Model) -> list[Recipe]:
    return []


def _lossless(name: str) -> Recipe:
    return Recipe(
        name, (*TIDY, FOLD), {"precision": "f32"}, ("fusion",), lossless=True, calibrated=False, precision="f32"
    )


def _int8(name: str, *quantize: PassSpec, calibrated: bool, **options: Any) -> Recipe:
    return Recipe(
        name,
        (MODERN, *TIDY, FOLD, *quantize),
        {"precision": "int8", **options},
        ("fusion", "int8"),
        lossless=False,
        calibrated=calibrated,
        precision="int8",
    )


def _within(recipe: Recipe, allowed: frozenset[str] | None) -> Recipe:
    """The recipe as the policy allows it: without `fusion`, no tidying, and the word is not reported."""
    if allowed is None or "fusion" in allowed:
        return recipe
    return replace(
        recipe,
        passes=tuple(spec for spec in recipe.passes if spec not in TIDY),
        techniques=tuple(word for word in recipe.techniques if word != "fusion"),
    )


def _own(recipe: Recipe) -> frozenset[str]:
    """The techniques a recipe stands for: fusion counts only where it is all there is."""
    return frozenset(recipe.techniques) - {"fusion"} or frozenset({"fusion"})
