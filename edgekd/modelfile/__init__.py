"""Reads exported files: what they compute, operator by operator, whatever the format."""

from edgekd.modelfile.operators import (
    ModelOperators,
    Operator,
    OperatorKind,
    read_operators,
)

__all__ = ["ModelOperators", "Operator", "OperatorKind", "read_operators"]
