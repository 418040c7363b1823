"""The integer program that every model becomes and every engine runs."""

from cipherlearn.circuit.builder import Builder, IntValue, RealValue, tabulate
from cipherlearn.circuit.cost import LookupCount, count_lookups
from cipherlearn.circuit.evaluate import Evaluation, evaluate
from cipherlearn.circuit.fuse import fuse
from cipherlearn.circuit.interval import Interval, width_of
from cipherlearn.circuit.ir import Circuit, Node, Primitive
from cipherlearn.circuit.serialize import circuit_from_dict, circuit_to_dict, dumps, loads
from cipherlearn.circuit.simulate import allowed_results, simulate

__all__ = [
    "Builder",
    "Circuit",
    "Evaluation",
    "IntValue",
    "Interval",
    "LookupCount",
    "Node",
    "Primitive",
    "RealValue",
    "allowed_results",
    "circuit_from_dict",
    "circuit_to_dict",
    "count_lookups",
    "dumps",
    "evaluate",
    "fuse",
    "loads",
    "simulate",
    "tabulate",
    "width_of",
]
