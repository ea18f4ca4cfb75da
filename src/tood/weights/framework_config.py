"""The training framework's configuration that a checkpoint carries, read without running it.

MMDetection stores it as Python source: assignments of literals and `dict(...)`.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any


def model_section(source: str) -> Mapping[str, Any]:
    """The `model` of a configuration's source, empty where there is none; what is no literal in it is None."""
    try:
        for statement in ast.parse(source).body:
            targets = statement.targets if isinstance(statement, ast.Assign) else []
            if any(isinstance(target, ast.Name) and target.id == "model" for target in targets):
                value = _value(statement.value) if isinstance(statement, ast.Assign) else None
                return value if isinstance(value, dict) else {}
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return {}
    return {}


def _value(node: ast.expr) -> Any:
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.List | ast.Tuple):
        return [_value(item) for item in node.elts]
    if isinstance(node, ast.Dict):
        pairs = zip(node.keys, node.values, strict=True)
        return {key.value: _value(value) for key, value in pairs if isinstance(key, ast.Constant)}
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dict":
        return {keyword.arg: _value(keyword.value) for keyword in node.keywords if keyword.arg is not None}
    return None
