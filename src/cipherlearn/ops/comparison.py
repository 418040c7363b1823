"""Comparisons, logic, selection and operations on bits."""

from cipherlearn.ops._registry import register

register("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual")
register("And", "Not", "Or", "Xor")
register("IsInf", "IsNaN", "Where")
register("BitShift", "BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor")
