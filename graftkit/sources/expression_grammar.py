"""The small grammar of the symbolic expressions and guards that torch.export writes as text.

torch hands expressions to `sympy.sympify`, which evaluates them as Python, and compiles guards into a
function; so text from a file is parsed here first, and only these forms pass: numbers, symbols, arithmetic,
comparisons, and calls of named functions that compute.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable

_LONGEST = 20_000
_LARGEST_EXPONENT = 64  # more would let a short text fill the memory
_SYMBOL = re.compile(r"[a-z]{1,5}\d+", re.ASCII)
_WORD = re.compile(r"\w+", re.ASCII)
_NUMBER = re.compile(r"-?[\d.]{1,30}([eE][-+]?\d{1,4})?", re.ASCII)
# No line ends, comments or backslashes: sympify joins lines before it parses, ast does not.
_CHARACTERS = re.compile(r"[\w '=,.()+\-*/%<>!\[\]]+", re.ASCII)

# As torch.utils._sympy.functions and sympy name them in what torch.export.save writes.
_FUNCTION_NAMES = (
    "Abs Add And CeilDiv CeilToInt CleanDiv Eq Equality FloatPow FloatTrueDiv FloorDiv FloorToInt Ge GreaterThan Gt"
    " Identity IntTrueDiv Integer IsNonOverlappingAndDenseIndicator LShift Le LessThan Lt Max Min Mod ModularIndexing"
    " Mul Ne Not Or Pow PowByNatural PythonMod RShift Rational RoundDecimal RoundToInt StrictGreaterThan"
    " StrictLessThan ToFloat TruncToFloat TruncToInt Unequality Where ceiling floor"
)
_FUNCTIONS = frozenset(_FUNCTION_NAMES.split())
_CONSTANTS = frozenset({"oo", "int_oo", "true", "false"})
_POWERS = frozenset({"Pow", "PowByNatural", "FloatPow", "LShift"})
_QUOTING = {"Symbol": _WORD, "Float": _NUMBER}
_GUARD_FUNCTION_NAMES = (
    "math.ceil math.floor math.sqrt math.trunc torch.sym_float torch.sym_int torch.sym_max torch.sym_min"
    " torch.sym_not torch.sym_sqrt max min Max Min FloorDiv Mod PythonMod"
)
_GUARD_FUNCTIONS = frozenset(_GUARD_FUNCTION_NAMES.split())
_GUARD_METHODS = frozenset({"size", "stride", "storage_offset"})

_PLAIN = (
    ast.Expression, ast.BoolOp, ast.And, ast.Or, ast.BinOp, ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod,
    ast.UnaryOp, ast.USub, ast.UAdd, ast.Not, ast.Compare, ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE,
    ast.Load,
)  # fmt: skip


def is_expression(text: str) -> bool:
    """Whether the text is an expression such as `Mul(Integer(2), Symbol('s0', integer=True))` or `2*s0`."""
    return _parses(text) and _fits(ast.parse(text, mode="eval"), _expression_leaf)


def is_guard(text: str) -> bool:
    """Whether the text is a guard such as `L['x'].size()[0] <= 64`."""
    return _parses(text) and _fits(ast.parse(text, mode="eval"), _guard_leaf)


def _parses(text: str) -> bool:
    if len(text) > _LONGEST or not _CHARACTERS.fullmatch(text):
        return False
    try:
        ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


def _fits(node: ast.AST, leaf: Callable[[ast.AST], list[ast.AST] | None]) -> bool:
    """Whether the node and all below are plain, or accepted by `leaf`, which names what is left to look at."""
    todo: list[ast.AST] = [node]
    while todo:
        current = todo.pop()
        if isinstance(current, _PLAIN):
            todo += ast.iter_child_nodes(current)
            continue
        rest = leaf(current)
        if rest is None:
            return False
        todo += rest
    return True


def _number(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, (int, float)) and abs(node.value) < 2**64


def _expression_leaf(node: ast.AST) -> list[ast.AST] | None:
    match node:
        case ast.Constant() if _number(node):
            return []
        case ast.Name(id=name) if _SYMBOL.fullmatch(name) or name in _CONSTANTS:
            return []
        case ast.Call(func=ast.Name(id=name), args=[ast.Constant(value=str(quoted))]) if name in _QUOTING:
            return [] if _QUOTING[name].fullmatch(quoted) and _flags(node) else None
        case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if name in _FUNCTIONS:
            return [*args] if name not in _POWERS or _small_power(args) else None
    return None


def _flags(call: ast.Call) -> bool:
    """Whether the keywords are assumptions or a precision: `positive=True`, `precision=53`."""
    return all(
        word.arg and isinstance(word.value, ast.Constant) and _number(word.value) and int(word.value.value) <= 1024  # type: ignore[arg-type]
        for word in call.keywords
    )


def _small_power(args: list[ast.expr]) -> bool:
    """Whether it is no tower: no power within, and the numbers of the exponent are small, multiplied, too."""
    if any(isinstance(each, ast.Name) and each.id in _POWERS for arg in args for each in ast.walk(arg)):
        return False
    product = 1.0
    for exponent in args[1:]:
        for each in ast.walk(exponent):
            if isinstance(each, ast.Constant) and not isinstance(each.value, str):
                if not _number(each):
                    return False
                product *= max(1.0, abs(each.value))  # type: ignore[arg-type]
    return product <= _LARGEST_EXPONENT


def _guard_leaf(node: ast.AST) -> list[ast.AST] | None:
    match node:
        case ast.Constant() if _number(node):
            return []
        case ast.Name(id="L"):
            return []
        case ast.Subscript(value=value, slice=ast.Constant(value=key)):
            return [value] if isinstance(key, int) or (isinstance(key, str) and _WORD.fullmatch(key)) else None
        case ast.Call(func=ast.Attribute(value=value, attr=method), args=[], keywords=[]) if method in _GUARD_METHODS:
            return [value]
        case ast.Call(func=func, args=args, keywords=[]) if ast.unparse(func) in _GUARD_FUNCTIONS:
            return [*args]
    return None
