"""Expansions: operators written with simpler ones mean the same, on any number of rows."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto

from cipherlearn import ops
from cipherlearn.errors import CipherlearnError, EncryptedOperandError, UnsupportedAttributeError
from cipherlearn.onnx import attribute_value
from cipherlearn.ops import Kind
from tests.backend_cases import Case, cases_of
from tests.ops.expand_examples import (
    EXAMPLES,
    ML,
    ROWS,
    SVC2,
    TRUTH,
    digits,
    ints,
    positive,
    signed,
)
from tests.ops.expansions import Expanded, evaluate, expand

EXPANDED = [n for n in ops.names() if (op := ops.get(n)).expand and op.integer is None]
# Operators that work on one encrypted value only: their expansions say so.
REFUSING = {"BitShift", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "Mod"}
# All cases that ONNX has for them are about the rows of a batch together, or there are none.
NO_CASES = {"MeanVarianceNormalization", *(n for n in EXPANDED if "." in n)}
# Rows so far apart that the exponentials of one of them are no numbers.
BEYOND_NUMBERS = {"test_softmax_large_number", "test_logsoftmax_large_number"}


def compositions(operator: str, case: Case) -> Iterator[tuple[Expanded, list[Any], list[Any]]]:
    """Expansions of a case with all, the first, or all other operands encrypted."""
    (node,) = case.model.graph.node
    attributes = {item.name: attribute_value(item) for item in node.attribute}
    if operator == "Split":
        attributes.setdefault("num_outputs", len(node.output))
    opset = max(case.opset, ops.OLDEST_OPSET)
    for inputs, expected in case.data:
        given = iter(inputs)
        operands = [next(given) if name else None for name in node.input]
        raw = ops.get(operator).raw_inputs
        free = [i for i, o in enumerate(operands) if o is not None and i not in raw]
        choices = [[1]] if operator == "Gather" else [free, free[:1], free[1:]]
        for chosen in filter(None, choices):
            try:
                found = expand(operator, operands, attributes, opset=opset, encrypted=chosen)
            except CipherlearnError:
                continue
            yield found, [operands[i] for i in chosen], expected


@pytest.mark.parametrize("operator", sorted(set(EXPANDED) - REFUSING - NO_CASES))
def test_an_expansion_agrees_with_the_cases_of_onnx(operator: str) -> None:
    agreed = 0
    for case in cases_of(operator):
        if case.name in BEYOND_NUMBERS:
            continue
        for found, operands, expected in compositions(operator, case):
            case.check(tuple(one.sample for one in found.results), expected)
            case.check(tuple(found.run(*operands)), expected)
            agreed += 1
    print(f"{operator}: {agreed} compositions of {len(cases_of(operator))} cases")  # noqa: T201
    assert agreed


def rows_apart(
    name: str, operands: list[Any], attributes: dict[str, Any], encrypted: tuple[int, ...]
) -> list[np.ndarray]:
    """What an operator gives for each row by itself."""
    results = [
        evaluate(
            name,
            [o[r : r + 1] if i in encrypted else o for i, o in enumerate(operands)],
            ops.NEWEST_OPSET,
            attributes,
        )
        for r in range(ROWS)
    ]
    return [np.concatenate(parts) for parts in zip(*results, strict=True)]


def check_rows(name: str, operands: list[Any], attributes: Any, encrypted: Any) -> Expanded:
    """Expand an operator for one row, and run that for all rows."""
    sample = [o[:1] if i in encrypted else o for i, o in enumerate(operands)]
    found = expand(name, sample, attributes, encrypted=encrypted)
    expected = rows_apart(name, operands, attributes, encrypted)
    for got, want in zip(found.run(*(operands[i] for i in encrypted)), expected, strict=False):
        assert got.shape == want.shape
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
    return found


@pytest.mark.parametrize(
    ("name", "operands", "attributes", "encrypted"),
    [pytest.param(*example, id=f"{i}-{example[0]}") for i, example in enumerate(EXAMPLES)],
)
def test_an_expansion_for_one_row_works_on_any_number_of_rows(
    name: str, operands: list[Any], attributes: dict[str, Any], encrypted: tuple[int, ...]
) -> None:
    found = check_rows(name, operands, attributes, encrypted)
    assert name not in found.steps or len(set(encrypted)) > 1


def test_every_expansion_has_an_example() -> None:
    named = {name for name, *_ in EXAMPLES}
    similar = {"Greater", "LessOrEqual", "ArgMin"}
    assert set(EXPANDED) - named - similar - REFUSING == set()


@given(
    data=st.data(),
    count=st.integers(2, 7),
    last=st.integers(0, 1),
    keep=st.integers(0, 1),
    name=st.sampled_from(["ArgMax", "ArgMin"]),
)
@settings(max_examples=60)
def test_places_of_extrema_with_ties(
    data: st.DataObject, count: int, last: int, keep: int, name: str
) -> None:
    seed = data.draw(st.integers(0, 10**6))
    x = np.random.default_rng(seed).integers(-2, 3, size=(ROWS, 2, count))
    dtype = data.draw(st.sampled_from([np.float64, np.int8, np.uint8]))
    values = (x + 2 if dtype == np.uint8 else x).astype(dtype)
    attributes = {"axis": 2, "select_last_index": last, "keepdims": keep}
    check_rows(name, [values], attributes, (0,))
    if dtype == np.float64:
        check_rows("Hardmax", [values], {"axis": -1}, (0,))


@given(
    letters=st.permutations("ijkl"),
    left=st.integers(1, 4),
    start=st.integers(0, 3),
    kept=st.sets(st.sampled_from("ijkl")),
    both=st.booleans(),
    seed=st.integers(0, 100),
)
@settings(max_examples=60)
def test_products_of_two_operands(
    letters: list[str], left: int, start: int, kept: set[str], both: bool, seed: int
) -> None:
    first, second = "b" + "".join(letters[:left]), "".join(letters[start:])
    second = "b" + second if both else second
    output = "b" + "".join(c for c in sorted(kept) if c in first + second)
    extents = {"b": ROWS, "i": 2, "j": 3, "k": 1, "l": 4}
    generator = np.random.default_rng(seed)
    values = [generator.normal(size=[extents[c] for c in text]) for text in (first, second)]
    places = (0, 1) if both else (0,)
    check_rows("Einsum", values, {"equation": f"{first},{second}->{output}"}, places)


@given(
    shape=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    mode=st.sampled_from(["constant", "edge", "reflect", "wrap"]),
    data=st.data(),
)
@settings(max_examples=60)
def test_borders(shape: list[int], mode: str, data: st.DataObject) -> None:
    amounts = [
        data.draw(st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)), label="pads")
        for n in shape
    ]
    pads = [0, *(a for a, _ in amounts), 0, *(b for _, b in amounts)]
    found = check_rows("Pad", [signed(ROWS, *shape), ints(*pads)], {"mode": mode}, (0,))
    assert set(found.steps) <= {"Concat", "Gather"}


def look_ups(found: Expanded) -> Counter[str]:
    """Steps that are element-wise functions, of which chains cost one look-up."""
    return Counter(step for step in found.steps if ops.get(step).kind is Kind.ELEMENTWISE)


@pytest.mark.parametrize(
    "number",
    [
        i
        for i, (name, operands, _, places) in enumerate(EXAMPLES)
        if name in {"Split", "Pad", "Trilu", "CenterCropPad", f"{ML}FeatureVectorizer"}
        or (name == "Where" and 0 not in places and len(places) == 2)
        or (name == "Resize" and len(operands) == 3 and not EXAMPLES[i][2])
    ],
)
def test_what_only_moves_elements_costs_no_look_up(number: int) -> None:
    assert not look_ups(check_rows(*EXAMPLES[number]))


def test_the_place_of_a_maximum_needs_few_comparisons() -> None:
    """Comparisons are counted by their elements: one look-up each."""
    for count, compared, decided in ((2, 1, 0), (3, 3, 2), (4, 6, 3), (10, 10, 9)):
        found = check_rows("ArgMax", [signed(ROWS, count)], {"axis": 1}, (0,))
        samples = found.composer.samples
        sizes = Counter[str]()
        for step in found.composer.steps:
            sizes[step.op] += samples[step.output].size
        assert (sizes["GreaterOrEqual"], sizes["Greater"]) == (compared, decided)
        assert found.steps.count("ReduceMax") == (count > 4)


def test_a_softmax_takes_no_encrypted_maximum() -> None:
    found = expand("Softmax", [signed(1, 4)], {})
    assert found.steps == ["Sub", "Exp", "ReduceSum", "Reciprocal", "Mul"]


def test_an_encrypted_index_is_a_table_or_a_product() -> None:
    narrow = expand("Gather", [signed(6, 2), digits(1, 4)], {}, encrypted=(1,))
    assert "MatMul" not in narrow.steps
    wide = expand("Gather", [signed(4, 7), digits(1)], {}, encrypted=(1,))
    assert wide.steps.count("MatMul") == 1


def test_reductions_of_older_operator_sets_have_their_axes_as_attributes() -> None:
    for opset in (13, 17, 18):
        x = signed(1, 4)
        axes = [ints(1)] if opset >= 18 else []
        attributes = {} if opset >= 18 else {"axes": (1,)}
        for name in ("ReduceL2", "ReduceLogSumExp"):
            found = expand(name, [x, *axes], attributes, opset=opset)
            (expected,) = evaluate(name, [x, *axes], opset, attributes)
            np.testing.assert_allclose(found.results[0].sample, expected)
        best = expand("ArgMax", [signed(1, 6)], {"axis": 1}, opset=opset)
        assert best.results[0].sample == signed(1, 6).argmax()


def test_windows_with_gaps_need_a_newer_operator_set() -> None:
    x, attributes = signed(1, 1, 5), {"kernel_shape": (2,), "dilations": (2,)}
    (step,) = [s for s in expand("LpPool", [x], attributes).composer.steps if s.op == "AveragePool"]
    assert step.attributes["dilations"] == (2,)
    plain = {**attributes, "dilations": (1,)}
    found = expand("LpPool", [x], plain, opset=18)
    np.testing.assert_allclose(found.results[0].sample, evaluate("LpPool", [x], 18, plain)[0])
    with pytest.raises(UnsupportedAttributeError, match=r"dilations=\[2\].*accepted: 1.* 19"):
        expand("LpPool", [x], attributes, opset=18)


ENCRYPTED = EncryptedOperandError
UNSUPPORTED = UnsupportedAttributeError


@pytest.mark.parametrize(
    ("name", "operands", "attributes", "encrypted", "error", "message"),
    [
        *(
            (n, [ints(1), ints(2)], {}, (0, 1), ENCRYPTED, "x0, x1 are diff")
            for n in sorted(REFUSING)
        ),
        ("Gather", [signed(1, 4), ints(1)], {}, (0, 1), ENCRYPTED, r"data \(x0\).*constant"),
        ("Gather", [signed(2, 4), ints(1)], {"axis": 1}, (1,), UNSUPPORTED, "axis=1.*accepted: 0"),
        ("Gather", [signed(1025, 2), ints(1)], {}, (1,), ENCRYPTED, "1025 rows.*up to 1024"),
        (
            "LayerNormalization",
            [signed(1, 4), signed(4)],
            {},
            (0, 1),
            ENCRYPTED,
            "'Scale'.*weights",
        ),
        ("BatchNormalization", [signed(1, 4), *[signed(4)] * 4], {}, (0, 2), ENCRYPTED, "'B'"),
        ("Split", [signed(1, 4)], {"axis": 1}, (0,), UNSUPPORTED, "num_outputs"),
        ("Pad", [signed(1, 4), ints(1, 0, 0, 0)], {}, (0,), UNSUPPORTED, "axis 0.*Add rows"),
        ("Trilu", [signed(1, 4)], {}, (0,), UNSUPPORTED, "across the rows"),
        ("ArgMax", [signed(1, 4)], {}, (0,), UNSUPPORTED, "axis=0 is the axis of the rows"),
        ("ArgMax", [signed(1, 129)], {"axis": 1}, (0,), UNSUPPORTED, "129.*up to 128"),
        ("Softmax", [signed(1, 4)], {"axis": 2}, (0,), UNSUPPORTED, "axis 2 does not exist"),
        ("ReduceProd", [signed(1, 17), ints(1)], {}, (0,), UNSUPPORTED, "17.*up to 16"),
        ("ReduceProd", [signed(1, 0), ints(1)], {}, (0,), UNSUPPORTED, "constant"),
        ("ReduceL2", [signed(1, 4), ints(1)], {}, (0, 1), ENCRYPTED, "'axes'"),
        ("MeanVarianceNormalization", [signed(1, 4, 2, 2)], {}, (0,), UNSUPPORTED, "axis 0"),
        ("Where", [TRUTH, signed(1, 4), signed(1, 4)], {}, (1, 2), UNSUPPORTED, "row to row"),
        ("Where", [TRUTH[:1], signed(1, 4), signed(4)], {}, (1, 2), UNSUPPORTED, "as many axes"),
        (
            "OneHot",
            [digits(1, 2), ints(3), ints(0, 1)],
            {"axis": 0},
            (0,),
            UNSUPPORTED,
            "axis=0.*rows",
        ),
        (
            "QuantizeLinear",
            [signed(1, 4), positive(1, 2)],
            {"block_size": 2},
            (0,),
            UNSUPPORTED,
            "block_size=2.*accepted: 0",
        ),
        (
            "Resize",
            [signed(1, 4), np.array([0, 0, 1, 1.5], np.float32), np.array([1, 2], np.float32)],
            {"coordinate_transformation_mode": "tf_crop_and_resize"},
            (0,),
            UNSUPPORTED,
            "exceeds the image.*Pad",
        ),
        ("Einsum", [signed(1, 4)], {"equation": "bi->ib"}, (0,), UNSUPPORTED, "rows of the batch"),
        ("Einsum", [signed(1, 4)], {"equation": "bi,ij->bj"}, (0,), UNSUPPORTED, "names 2 oper"),
        ("Einsum", [signed(1, 4)], {"equation": "bij->bj"}, (0,), UNSUPPORTED, "names 3 axes"),
        ("Einsum", [signed(1)[0]], {"equation": "->"}, (0,), UNSUPPORTED, "rows of the batch"),
        (f"{ML}OneHotEncoder", [ints(1)], {}, (0,), UNSUPPORTED, "cats_int64s is empty"),
        (
            f"{ML}SVMClassifier",
            [signed(1, 4)],
            {"coefficients": (1.0,) * 4, "classlabels_ints": (0,)},
            (0,),
            UNSUPPORTED,
            "vectors_per_class.*LinearClassifier",
        ),
        (
            f"{ML}SVMClassifier",
            [signed(1, 4)],
            {**SVC2, "coefficients": (1.0,) * 4},
            (0,),
            UNSUPPORTED,
            "positive",
        ),
    ],
)
def test_what_cannot_be_expanded(
    name: str, operands: Any, attributes: Any, encrypted: Any, error: Any, message: str
) -> None:
    with pytest.raises(error, match=message):
        expand(name, operands, attributes, encrypted=encrypted)


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("BatchNormalization", {"training_mode": 1}, "training_mode=1.*accepted: 0"),
        ("Pad", {"mode": "mirror"}, "'mirror'.*accepted: 'constant'"),
        ("QuantizeLinear", {"output_dtype": TensorProto.INT4}, "INT4.*Accepted: UINT8"),
        (f"{ML}LinearClassifier", {"post_transform": "PROBIT"}, "'PROBIT'.*'LOGISTIC'"),
        (f"{ML}LinearClassifier", {"classlabels_strings": ("a",)}, "strings cannot be encrypted"),
        (f"{ML}LinearRegressor", {"post_transform": "PROBIT"}, "'PROBIT'.*accepted: 'NONE'"),
        (f"{ML}SVMClassifier", {"kernel_type": "RBF"}, "'RBF'.*accepted: 'LINEAR'.*kernel="),
        (f"{ML}SVMRegressor", {"kernel_type": "POLY"}, "'POLY'.*accepted: 'LINEAR'"),
        (f"{ML}SVMClassifier", {"prob_a": (1.0,)}, "probability=False"),
        (f"{ML}Normalizer", {"norm": "L3"}, "'L3'.*'L1'"),
        (f"{ML}OneHotEncoder", {"zeros": 0}, "zeros=0.*accepted: zeros=1"),
        (f"{ML}LabelEncoder", {"keys_strings": ("a",)}, "keys_strings.*numbers"),
    ],
)
def test_what_a_check_refuses(name: str, values: dict[str, Any], message: str) -> None:
    check = ops.get(name).check
    assert check is not None
    assert check({}) is None
    assert re.search(message, check(values) or "nothing is refused")
