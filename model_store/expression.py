"""A metric in the owner's own words: one expression over a sample's outputs, such as

    abs(argmax(ref['logits']) - argmax(out['logits'])) <= 1

`ref['name']` and `out['name']` are one sample's outputs of the reference and of the variant (without the batch axis),
`labels` (or `labels['name']` where several outputs have labels) is what the owner says is right. The value is one
number or truth a sample; what is judged is its mean over the samples.

Outside text, so nothing of Python is evaluated: the text is parsed with `ast`, every node must be of a kind in the
tables below, and the tree is walked by hand. There are no attributes, no calls but to the functions named here, no
loops, no strings but names of outputs; numbers are float64, and no array grows past MOST_ELEMENTS.
"""

from __future__ import annotations

import ast
import difflib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

MOST_CHARACTERS, MOST_NODES, MOST_DEPTH = 500, 200, 25
MOST_ELEMENTS = 1 << 26

Arrays = Mapping[str, np.ndarray]


class InvalidExpression(ValueError):
    """The text is no expression of this language, or has no value on these outputs; the message says where."""


def _top(values: np.ndarray, count: float) -> np.ndarray:
    """Indices of the `count` largest entries of the last axis."""
    wanted = int(count)
    if not 1 <= wanted <= values.shape[-1]:
        raise InvalidExpression(f"top(x, {wanted}): x has {values.shape[-1]} entries")
    return np.argsort(values, axis=-1)[..., -wanted:]


FUNCTIONS: dict[str, tuple[Callable[..., Any], int, int]] = {
    "abs": (np.abs, 1, 1), "sign": (np.sign, 1, 1), "sqrt": (np.sqrt, 1, 1), "square": (np.square, 1, 1),
    "exp": (np.exp, 1, 1), "log": (np.log, 1, 1), "log10": (np.log10, 1, 1), "round": (np.round, 1, 1),
    "floor": (np.floor, 1, 1), "tanh": (np.tanh, 1, 1),
    "mean": (np.mean, 1, 1), "sum": (np.sum, 1, 1), "min": (np.min, 1, 1), "max": (np.max, 1, 1),
    "median": (np.median, 1, 1), "std": (np.std, 1, 1), "norm": (lambda x: np.sqrt(np.sum(np.square(x))), 1, 1),
    "all": (np.all, 1, 1), "any": (np.any, 1, 1), "size": (np.size, 1, 1), "argmax": (np.argmax, 1, 1),
    "argmin": (np.argmin, 1, 1), "sort": (lambda x: np.sort(x, axis=-1), 1, 1), "isin": (np.isin, 2, 2),
    "last": (lambda x: np.asarray(x)[..., -1], 1, 1), "top": (_top, 2, 2), "percentile": (np.percentile, 2, 2),
    "minimum": (np.minimum, 2, 2), "maximum": (np.maximum, 2, 2), "where": (np.where, 3, 3), "clip": (np.clip, 3, 3),
    "dot": (lambda x, y: np.sum(x * y), 2, 2),
}  # fmt: skip
"""Name -> (what it computes, over all entries unless said otherwise; fewest and most arguments)."""

OPERATORS: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Add: np.add, ast.Sub: np.subtract, ast.Mult: np.multiply, ast.Div: np.divide, ast.Pow: np.power,
    ast.Mod: np.mod, ast.FloorDiv: np.floor_divide, ast.USub: np.negative, ast.UAdd: np.positive,
    ast.Not: np.logical_not, ast.Invert: np.logical_not, ast.BitAnd: np.logical_and, ast.BitOr: np.logical_or,
    ast.And: np.logical_and, ast.Or: np.logical_or, ast.Eq: np.equal, ast.NotEq: np.not_equal, ast.Lt: np.less,
    ast.LtE: np.less_equal, ast.Gt: np.greater, ast.GtE: np.greater_equal,
}  # fmt: skip

ROOTS = ("ref", "out", "labels")


class Expression:
    """A checked expression. Raises InvalidExpression when `text` is none."""

    def __init__(self, text: str) -> None:
        if len(text) > MOST_CHARACTERS:
            raise InvalidExpression(f"an expression has at most {MOST_CHARACTERS} characters, this has {len(text)}")
        try:
            self._body = ast.parse(text.strip(), mode="eval").body
        except (SyntaxError, ValueError, MemoryError, RecursionError) as exc:
            raise InvalidExpression(f"not an expression: {getattr(exc, 'msg', None) or exc}") from None
        if (nodes := sum(1 for _ in ast.walk(self._body))) > MOST_NODES:
            raise InvalidExpression(f"an expression has at most {MOST_NODES} parts, this has {nodes}")
        self.text = text
        self.outputs: set[str] = set()
        self._check(self._body, 0)
        if not self.outputs:
            raise InvalidExpression("the expression looks at no output of the variant: write out['name']")

    def evaluate(self, ref: Arrays, out: Arrays, labels: Arrays) -> float:
        """The value on one sample. Raises InvalidExpression where it has none: an unknown output, or not one number."""
        with np.errstate(all="ignore"):
            value = np.asarray(self._value(self._body, {"ref": ref, "out": out, "labels": labels}))
        if value.size != 1:
            raise InvalidExpression(
                f"the expression gives {value.size} values a sample (shape {list(value.shape)}), not one: "
                "take mean, sum, max, ... of it"
            )
        number = float(value.reshape(()))
        if not np.isfinite(number):
            raise InvalidExpression(f"the expression is {number} on a sample")
        return number

    def _check(self, node: ast.AST, depth: int) -> None:
        if depth > MOST_DEPTH:
            raise InvalidExpression(f"the expression is nested deeper than {MOST_DEPTH}")
        match node:
            case ast.Constant(value=bool() | int() | float() as value):
                if abs(value) > 1e300:
                    raise InvalidExpression("numbers are at most 1e300")
                return
            case ast.Subscript(value=ast.Name(id=root), slice=ast.Constant(value=str() as name)) if root in ROOTS:
                if root == "out":
                    self.outputs.add(name)
                return
            case ast.Name(id="labels"):
                return
            case ast.Name(id=name):
                close = difflib.get_close_matches(name, (*ROOTS, *FUNCTIONS), n=1)
                hint = f"; did you mean {close[0]!r}?" if close else ""
                how = " (write it with the name of an output: ref['name'])" if name in ROOTS else ""
                raise InvalidExpression(f"unknown name {name!r}{how or hint}")
            case ast.BinOp(op=op) | ast.UnaryOp(op=op) | ast.BoolOp(op=op) if type(op) in OPERATORS:
                pass
            case ast.Compare(ops=[op]) if type(op) in OPERATORS:
                pass
            case ast.Call(func=ast.Name(id=name), args=args, keywords=[]):
                self._check_call(name, len(args))
                for argument in args:
                    self._check(argument, depth + 1)
                return
            case _:
                raise InvalidExpression(f"{ast.unparse(node)!r} is not part of the language")
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.expr):
                self._check(child, depth + 1)

    @staticmethod
    def _check_call(name: str, arguments: int) -> None:
        if name not in FUNCTIONS:
            close = difflib.get_close_matches(name, FUNCTIONS, n=1)
            raise InvalidExpression(
                f"no function {name!r}; "
                + (f"did you mean {close[0]!r}?" if close else f"there are {', '.join(sorted(FUNCTIONS))}")
            )
        _, fewest, most = FUNCTIONS[name]
        if not fewest <= arguments <= most:
            raise InvalidExpression(f"{name} takes {fewest} arguments, not {arguments}")

    def _value(self, node: ast.AST, given: Mapping[str, Arrays]) -> Any:
        match node:
            case ast.Constant(value=int() | float() as value):
                return np.float64(value)  # never Python's integers: 9 ** 9 ** 9 is infinity, not a gigabyte
            case ast.Subscript(value=ast.Name(id=root), slice=ast.Constant(value=str() as name)):
                return _named(given[root], root, name)
            case ast.Name():
                return _only(given["labels"])
            case ast.Call(func=ast.Name(id=name), args=args):
                return self._apply(FUNCTIONS[name][0], [self._value(argument, given) for argument in args], name)
            case ast.Compare(left=left, ops=[op], comparators=[right]) | ast.BinOp(left=left, op=op, right=right):
                operands = [self._value(left, given), self._value(right, given)]
                return self._apply(OPERATORS[type(op)], operands, type(op).__name__)
            case ast.UnaryOp(op=op, operand=operand):
                return OPERATORS[type(op)](self._value(operand, given))
            case ast.BoolOp(op=op, values=values):
                value = self._value(values[0], given)
                for other in values[1:]:
                    value = self._apply(OPERATORS[type(op)], [value, self._value(other, given)], type(op).__name__)
                return value
        raise AssertionError(f"unchecked node {node!r}")

    @staticmethod
    def _apply(function: Callable[..., Any], operands: list[Any], name: str) -> Any:
        try:
            if len(operands) > 1 and name not in ("isin", "top", "percentile"):
                shape = np.broadcast_shapes(*(np.shape(operand) for operand in operands))
                if int(np.prod(shape, dtype=np.float64)) > MOST_ELEMENTS:
                    raise InvalidExpression(f"{name} would make an array of shape {list(shape)}: too large")
            return function(*operands)
        except InvalidExpression:
            raise
        except (ValueError, TypeError, IndexError) as exc:
            raise InvalidExpression(f"{name}: {exc}") from None


def _named(arrays: Arrays, root: str, name: str) -> np.ndarray:
    if name not in arrays:
        known = ", ".join(map(repr, arrays)) or "none"
        raise InvalidExpression(f"{root}[{name!r}]: there is no such array; there are {known}")
    array = arrays[name]
    return array if array.dtype == object else np.asarray(array, np.float64)


def _only(labels: Arrays) -> np.ndarray:
    if len(labels) != 1:
        known = "no labels" if not labels else f"labels of {', '.join(map(repr, sorted(labels)))}: labels['name']"
        raise InvalidExpression(f"labels: the samples hold {known}")
    return np.asarray(next(iter(labels.values())), np.float64)
