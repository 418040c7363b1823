from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cipherlearn import ops
from cipherlearn.circuit import Builder, evaluate
from cipherlearn.errors import UnsupportedAttributeError
from cipherlearn.ops._integer import (
    Affine,
    add_bias,
    linear_map,
    matrix_product,
    minimum,
    pairwise,
)


@st.composite
def affine(draw: st.DrawFn, shape: tuple[int, ...], constant: bool = False) -> Affine:
    seed = draw(st.integers(0, 10**6))
    integers = np.random.default_rng(seed).integers(-20, 40, shape)
    scale = draw(st.sampled_from([0.25, 1.0, -0.5, 3.0]))
    return Affine(integers, scale, draw(st.integers(-5, 30)), constant)


def real(value: Affine) -> np.ndarray:
    return np.asarray(value.scale * (value.integers - value.zero_point))


def in_circuit(value: Affine, builder: Builder, name: str) -> Affine:
    """The value as the input of a circuit: one row of a batch of one."""
    if value.constant:
        return value
    source = builder.input(name, value.integers.shape, -20, 40)
    return Affine(source, value.scale, value.zero_point)


def check_in_circuit(compute: Any, *operands: Affine) -> None:
    """Arrays and values of a circuit give the same integers, scale and zero-point."""
    builder = Builder()
    symbols = [in_circuit(o, builder, f"x{i}") for i, o in enumerate(operands)]
    result, expected = compute(*symbols), compute(*operands)
    circuit = builder.finish([result.integers])
    batch = [o.integers[None] for o in operands if not o.constant]
    np.testing.assert_array_equal(evaluate(circuit, *batch).outputs[0][0], expected.integers)
    np.testing.assert_array_equal(result.scale, expected.scale)
    np.testing.assert_array_equal(result.zero_point, expected.zero_point)


#: Shapes of two operands; the first axis of an encrypted one is that of the rows.
RIGHT = [
    ((5, 4), (4, 3)),
    ((5, 4), (4,)),
    ((5, 2, 4), (4, 3)),
    ((5, 2, 4), (1, 4, 3)),
    ((5, 2, 4), (4,)),
    ((5, 6, 2, 4), (6, 4, 3)),
]
LEFT = [((6, 3), (5, 3, 4)), ((3,), (5, 3, 4)), ((1, 6, 3), (5, 3, 4)), ((6, 3), (3, 5))]
BOTH = [((5, 2, 4), (5, 4, 3)), ((5, 4), (5, 4, 3)), ((5, 6, 2, 4), (5, 6, 4, 1))]


@pytest.mark.parametrize(("left", "right"), RIGHT)
@given(data=st.data(), alpha=st.sampled_from([1.0, 0.5, -2.0]))
def test_products_with_a_constant_on_the_right(
    left: tuple[int, ...], right: tuple[int, ...], data: st.DataObject, alpha: float
) -> None:
    x, w = data.draw(affine(left)), data.draw(affine(right, constant=True))
    np.testing.assert_allclose(real(matrix_product(x, w, alpha)), alpha * real(x) @ real(w))
    check_in_circuit(matrix_product, x, w)


@pytest.mark.parametrize(("left", "right"), LEFT)
@given(data=st.data())
def test_products_with_a_constant_on_the_left(
    left: tuple[int, ...], right: tuple[int, ...], data: st.DataObject
) -> None:
    w, x = data.draw(affine(left, constant=True)), data.draw(affine(right))
    np.testing.assert_allclose(real(matrix_product(w, x)), real(w) @ real(x))
    check_in_circuit(matrix_product, w, x)


@pytest.mark.parametrize(("left", "right"), BOTH)
@given(data=st.data())
def test_products_of_two_encrypted_matrices(
    left: tuple[int, ...], right: tuple[int, ...], data: st.DataObject
) -> None:
    x, z = data.draw(affine(left)), data.draw(affine(right))
    np.testing.assert_allclose(real(matrix_product(x, z)), real(x) @ real(z))
    check_in_circuit(matrix_product, x, z)


def test_the_zero_point_of_a_constant_costs_nothing() -> None:
    builder = Builder()
    x = Affine(builder.input("x", (1, 2), 0, 7), 0.5, 3)
    w = Affine(np.array([[4, 5], [6, 7]]), 1.0, 5, constant=True)
    circuit = builder.finish([matrix_product(x, w).integers])
    assert [node.primitive.name for node in circuit] == ["Input", "Constant", "MatMul"]


@given(affine((5, 3)), st.lists(st.floats(-100, 100), min_size=3, max_size=3))
def test_a_bias_joins_the_zero_point(accumulator: Affine, bias: list[float]) -> None:
    shifted = add_bias(accumulator, np.array(bias))
    assert shifted.integers is accumulator.integers
    np.testing.assert_allclose(real(shifted), real(accumulator) + bias, atol=1e-9)


@given(
    data=st.data(),
    transposed=st.tuples(st.booleans(), st.booleans()),
    alpha=st.sampled_from([1.0, 0.25]),
    beta=st.sampled_from([1.0, 0.0, -3.0]),
)
def test_gemm_with_all_its_attributes(
    data: st.DataObject, transposed: tuple[bool, bool], alpha: float, beta: float
) -> None:
    first, second = transposed
    x = data.draw(affine((4, 5) if first else (5, 4)))
    w = data.draw(affine((3, 4) if second else (4, 3), constant=True))
    bias = np.array([0.5, -1.0, 2.0])
    attributes = {"transA": int(first), "transB": int(second), "alpha": alpha, "beta": beta}
    form = ops.get("Gemm").integer
    assert form is not None
    left, right = (real(x).T if first else real(x)), (real(w).T if second else real(w))
    for rest, added in (([bias], beta * bias), ([], 0.0), ([None], 0.0)):
        found = form.compute([x, w, *rest], attributes)
        np.testing.assert_allclose(real(found), alpha * left @ right + added)
    check_in_circuit(lambda a, b: form.compute([a, b, bias], attributes), x, w)


def test_a_product_scaled_by_0_is_refused() -> None:
    form = ops.get("Gemm").integer
    assert form is not None
    x, w = Affine(np.ones((2, 2), int), 1.0, 0), Affine(np.ones((2, 2), int), 1.0, 0, True)
    with pytest.raises(UnsupportedAttributeError, match="alpha=0"):
        form.compute([x, w], {"transA": 0, "transB": 0, "alpha": 0.0, "beta": 1.0})


@pytest.mark.parametrize(
    ("op", "function"), [("Add", np.add), ("Sub", np.subtract), ("Mul", np.multiply)]
)
@given(data=st.data())
def test_arithmetic_of_two_encrypted_values(op: str, function: Any, data: st.DataObject) -> None:
    form = ops.get(op).integer
    assert form is not None
    x, z = data.draw(affine((5, 3))), data.draw(affine((5, 3)))
    if form.common_scale:
        z = Affine(z.integers, x.scale, z.zero_point)
    found = form.compute([x, z], {})
    np.testing.assert_allclose(real(found), function(real(x), real(z)))
    check_in_circuit(lambda a, b: form.compute([a, b], {}), x, z)


def test_a_quotient_is_a_product_with_the_reciprocal() -> None:
    form = ops.get("Div").integer
    assert form is not None
    assert form.prepare[1](np.array([4.0])) == 0.25
    x, inverse = Affine(np.array([[6]]), 0.5, 0), Affine(np.array([[3]]), 0.25, 1)
    np.testing.assert_array_equal(real(form.compute([x, inverse], {})), [[1.5]])


def test_operators_that_mix_values_say_how() -> None:
    for name in ops.names():
        op = ops.get(name)
        if op.kind is ops.Kind.MIXING and op.function is None:
            assert op.integer is not None or op.expand is not None, name
        if op.integer is not None and op.integer.univariate:
            assert op.kind is ops.Kind.ELEMENTWISE


@given(affine((2, 3, 4)))
def test_a_linear_map_moves_the_zero_point_along(value: Affine) -> None:
    """Borders of zeros stand for zero; there is one zero-point a channel all the same."""

    def pad_and_add(q: Any) -> Any:
        border = np.zeros((*q.shape[:2], 1), dtype=np.int64)
        padded = np.concatenate([border, q], axis=2)
        return padded[:, :, :-1] + 2 * padded[:, :, 1:]

    result = linear_map(value, pad_and_add, value.scale)
    padded = np.pad(real(value), [(0, 0), (0, 0), (1, 0)])
    np.testing.assert_allclose(real(result), padded[:, :, :-1] + 2 * padded[:, :, 1:])
    assert np.size(result.zero_point) in (1, 3)


@given(st.lists(st.integers(-50, 50), min_size=1, max_size=20))
def test_pairwise_is_a_fold_of_the_least_depth(values: list[int]) -> None:
    depths = pairwise(
        lambda left, right: (left[0] + right[0], max(left[1], right[1]) + 1),
        [(value, 0) for value in values],
    )
    assert depths == (sum(values), (len(values) - 1).bit_length())
    assert pairwise(lambda left, right: left + right, [str(v) for v in values]) == "".join(
        map(str, values)
    ), "the order stays"


@given(affine((2, 3)), affine((2, 3)))
def test_the_minimum_is_that_of_numpy_in_a_circuit_too(left: Affine, right: Affine) -> None:
    expected = np.minimum(left.integers, right.integers)
    np.testing.assert_array_equal(minimum(left.integers, right.integers), expected)
    check_in_circuit(lambda a, b: Affine(minimum(a.integers, b.integers), 1.0, 0), left, right)
