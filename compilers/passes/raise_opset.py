"""Raise an old model's opset: per-channel scales begin with opset 13, and older exports are still common."""

from __future__ import annotations

import onnx
import onnx_ir as ir


class RaiseOpset(ir.passes.FunctionalPass):
    """Convert to opset `to` a model older than `least`; newer ones are left as they are."""

    def __init__(self, least: int = 13, to: int = 17) -> None:
        self.least = least
        self.to = to

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        if model.opset_imports.get("", self.least) >= self.least:
            return ir.passes.PassResult(model.clone(), modified=False)
        converted = onnx.version_converter.convert_version(ir.to_proto(model), self.to)
        return ir.passes.PassResult(ir.from_proto(converted), modified=True)

    def ensures(self, model: ir.Model) -> None:
        if (opset := model.opset_imports.get("", self.least)) < self.least:
            raise ir.passes.PostconditionError(f"the model is still of opset {opset}")
