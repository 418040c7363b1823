"""Einstein sums, written as products of matrices."""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cipherlearn.errors import UnsupportedAttributeError
from cipherlearn.ops._composition import Attributes, Operands, reduce, take, transpose
from cipherlearn.ops._expand import Composer, Tensor
from cipherlearn.ops._registry import Kind, register


@dataclass(frozen=True)
class _Term:
    """A tensor and the letters of its axes."""

    value: Tensor
    letters: str

    def extent(self, letter: str) -> int:
        return self.value.shape[self.letters.index(letter)]


def _einsum(composer: Composer, operands: Operands, attributes: Attributes) -> Tensor:
    values = [one for one in operands if one is not None]
    inputs, output = letters_of(str(attributes["equation"]), [one.ndim for one in values])
    _check_rows(values, inputs, output)
    terms = [_Term(*pair) for pair in zip(values, inputs, strict=True)]
    terms = [_without_repeats(composer, term) for term in terms]
    while len(terms) > 1:
        first, second, *rest = terms
        kept = set(output).union(*(term.letters for term in rest))
        terms = [_product(composer, first, second, kept), *rest]
    last = _summed(composer, terms[0], set(output))
    return transpose(composer, last.value, [last.letters.index(letter) for letter in output])


def letters_of(equation: str, ndims: Sequence[int]) -> tuple[list[str], str]:
    """The letters of each operand's axes and of the result's, ellipses spelled out.

    Parameters
    ----------
    equation : str
        As ``numpy.einsum`` reads it: ``"...ij,jk->...ik"``.
    ndims : sequence of int
        Number of axes of each operand.

    Returns
    -------
    inputs : list of str
    output : str
    """
    left, arrow, right = equation.replace(" ", "").partition("->")
    given = left.split(",")
    if len(given) != len(ndims):
        raise UnsupportedAttributeError(
            f"equation={equation!r} names {len(given)} operands, {len(ndims)} are given"
        )
    free = [letter for letter in string.ascii_letters if letter not in equation]
    hidden = [
        ndim - len(text.replace("...", "")) if "..." in text else 0
        for text, ndim in zip(given, ndims, strict=True)
    ]
    names = "".join(free[: max(hidden)])
    inputs = [
        text.replace("...", names[len(names) - count :])
        for text, count in zip(given, hidden, strict=True)
    ]
    if not arrow:
        single = [c for c in sorted(set(left) - set(",.")) if left.count(c) == 1]
        right = ("..." if "..." in left else "") + "".join(single)
    for text, ndim in zip(inputs, ndims, strict=True):
        if len(text) != ndim:
            raise UnsupportedAttributeError(
                f"equation={equation!r} names {len(text)} axes of an operand that has {ndim}"
            )
    return inputs, right.replace("...", names)


def _check_rows(values: Sequence[Tensor], inputs: Sequence[str], output: str) -> None:
    """Check that the rows of the batch stay apart: one letter, first wherever it stands."""
    firsts = {text[:1] for one, text in zip(values, inputs, strict=True) if not one.constant}
    rows = min(firsts)
    constant = "".join(t for one, t in zip(values, inputs, strict=True) if one.constant)
    texts = [t for one, t in zip(values, inputs, strict=True) if not one.constant]
    apart = len(firsts) == 1 and rows and output[:1] == rows and rows not in constant
    if not apart or any(text.count(rows) > 1 for text in (*texts, output)):
        raise UnsupportedAttributeError(
            f"the equation {','.join(inputs)}->{output} mixes or moves the rows of the batch, which"
            " are encrypted one by one; accepted: the first axis of every encrypted operand is the"
            " first one of the result, and of no constant"
        )


def _without_repeats(composer: Composer, term: _Term) -> _Term:
    """A letter that stands for two axes of one operand means their diagonal."""
    for letter in dict.fromkeys(term.letters):
        while term.letters.count(letter) > 1:
            first = term.letters.index(letter)
            second = term.letters.index(letter, first + 1)
            others = [i for i in range(term.value.ndim) if i not in (first, second)]
            extent = term.value.shape[first]
            moved = transpose(composer, term.value, [*others, first, second])
            flat = _reshape(composer, moved, [*moved.shape[:-2], extent * extent])
            value = take(composer, flat, np.arange(extent) * (extent + 1), flat.ndim - 1)
            term = _Term(value, "".join(term.letters[i] for i in others) + letter)
    return term


def _summed(composer: Composer, term: _Term, kept: set[str]) -> _Term:
    """Sums over the letters that nothing else has."""
    axes = [axis for axis, letter in enumerate(term.letters) if letter not in kept]
    value = reduce(composer, "ReduceSum", term.value, axes, keepdims=0)
    return _Term(value, "".join(c for c in term.letters if c in kept))


def _product(composer: Composer, left: _Term, right: _Term, kept: set[str]) -> _Term:
    """The product of two tensors, summed over the letters that are not kept."""
    if left.value.constant and not right.value.constant:
        left, right = right, left
    left = _summed(composer, left, kept | set(right.letters))
    right = _summed(composer, right, kept | set(left.letters))
    shared = [c for c in left.letters if c in right.letters and c in kept]
    inner = [c for c in left.letters if c in right.letters and c not in kept]
    rows = [c for c in left.letters if c not in right.letters]
    columns = [c for c in right.letters if c not in left.letters]
    if not right.value.constant:
        shared = sorted(shared, key=lambda c: c != left.letters[0])
    elif not left.value.constant:
        # The batch axis of the encrypted factor stays first.
        rows = [c for c in rows if c != left.letters[0]]
    lead = "" if left.value.constant or left.letters[0] in shared else left.letters[0]
    extents = {c: left.extent(c) for c in left.letters} | {
        c: right.extent(c) for c in right.letters
    }
    for c in shared + inner:
        # An extent of 1 is repeated.
        extents[c] = max(left.extent(c), right.extent(c))
    left = _repeated(composer, left, extents)
    right = _repeated(composer, right, extents)
    one, other = "".join([lead, *shared, *rows, *inner]), "".join([*shared, *inner, *columns])
    first = transpose(composer, left.value, [left.letters.index(c) for c in one])
    second = transpose(composer, right.value, [right.letters.index(c) for c in other])
    outer = [*([1] if lead else []), *(extents[c] for c in shared)]
    m, k, n = (int(np.prod([extents[c] for c in cs], dtype=int)) for cs in (rows, inner, columns))
    first = _reshape(composer, first, [*outer, m, k])
    second = _reshape(composer, second, [*(extents[c] for c in shared), k, n])
    op = "MatMul" if inner else "Mul"
    result = "".join([lead, *shared, *rows, *columns])
    shape = [*outer, *(extents[c] for c in [*rows, *columns])]
    return _Term(_reshape(composer, composer.add(op, first, second), shape), result)


def _repeated(composer: Composer, term: _Term, extents: dict[str, int]) -> _Term:
    """The tensor with its axes of extent 1 repeated (but for the batch axis)."""
    first = 0 if term.value.constant else 1
    repeats = [1 if i < first else extents[c] // term.extent(c) for i, c in enumerate(term.letters)]
    if set(repeats) <= {1}:
        return term
    value = composer.add("Tile", term.value, np.array(repeats, dtype=np.int64))
    return _Term(value, term.letters)


def _reshape(composer: Composer, value: Tensor, shape: Sequence[int]) -> Tensor:
    """Another shape; the batch axis, which comes first, stays what it is."""
    if value.constant:
        return composer.constant(value.sample.reshape(shape))
    if value.shape == tuple(shape):
        return value
    return composer.reshape(value, *shape[1:])


register("Einsum", kind=Kind.MIXING, expand=_einsum)
