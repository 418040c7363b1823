from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cipherlearn.circuit import (
    Circuit,
    circuit_from_dict,
    circuit_to_dict,
    dumps,
    evaluate,
    ir,
    loads,
)
from cipherlearn.circuit.serialize import FORMAT_VERSION, decode, encode, parse_json
from cipherlearn.errors import FormatError, InvalidTypeError
from tests.circuit.cases import CASES, circuit_of
from tests.circuit.programs import circuits, inputs_of, seeds


def assert_same(one: Circuit, other: Circuit) -> None:
    assert str(one) == str(other)
    assert one.outputs == other.outputs
    for node, twin in zip(one, other, strict=True):
        np.testing.assert_array_equal(node.interval.lo, twin.interval.lo)
        np.testing.assert_array_equal(node.interval.hi, twin.interval.hi)
        assert node.interval.step == twin.interval.step
        assert [encode(v) for v in vars(node.primitive).values()] == [
            encode(v) for v in vars(twin.primitive).values()
        ]


@settings(max_examples=100)
@given(circuits(), seeds)
def test_circuits_come_back(circuit: Circuit, seed: int) -> None:
    text = dumps(circuit)
    loaded = loads(text)
    assert_same(circuit, loaded)
    assert dumps(loaded) == text
    inputs = inputs_of(circuit, seed)
    before, after = evaluate(circuit, *inputs), evaluate(loaded, *inputs)
    assert before.overflows == after.overflows
    for found, expected in zip(after.outputs, before.outputs, strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name", CASES)
def test_every_primitive_comes_back(name: str) -> None:
    circuit = circuit_of(name)
    loaded = loads(dumps(circuit).encode())
    assert_same(circuit, loaded)
    inputs = inputs_of(circuit, 0)
    np.testing.assert_array_equal(
        evaluate(loaded, *inputs).outputs[0], evaluate(circuit, *inputs).outputs[0]
    )


def test_texts_are_the_same_each_time() -> None:
    assert dumps(circuit_of("assume")) == dumps(circuit_of("assume"))


def saved(name: str = "lookup by element") -> dict[str, Any]:
    data: dict[str, Any] = json.loads(dumps(circuit_of(name)))
    return data


def test_the_file_says_what_it_is() -> None:
    data = saved()
    assert (data["format"], data["version"]) == ("cipherlearn.circuit", FORMAT_VERSION)


@pytest.mark.parametrize("text", ["", "{", "[1,", b"\xff\xfe\x00", "nonsense", "[" * 100_000])
def test_what_is_not_json(text: str | bytes) -> None:
    with pytest.raises(FormatError, match="not a saved cipherlearn file"):
        loads(text)


@pytest.mark.parametrize("text", ["null", "[]", "3", "{}", '{"format": "other"}', '"text"'])
def test_other_json(text: str) -> None:
    with pytest.raises(FormatError, match="not a saved cipherlearn circuit"):
        loads(text)


@pytest.mark.parametrize("version", [0, 2, None, "1", [1]])
def test_other_versions(version: object) -> None:
    with pytest.raises(FormatError, match="reads version 1"):
        circuit_from_dict({**saved(), "version": version})


def array_data(array: np.ndarray) -> dict[str, Any]:
    data: dict[str, Any] = encode(array)
    return data


def big(name: str, **parameters: Any) -> Callable[[dict[str, Any]], None]:
    def change(data: dict[str, Any]) -> None:
        data["nodes"][0]["primitive"] = name
        data["nodes"][0]["parameters"] = parameters

    return change


def in_table(**changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda data: data["nodes"][1]["parameters"]["table"].update(changes)


def in_node(**changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda data: data["nodes"][1].update(changes)


def in_parameters(**changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda data: data["nodes"][1]["parameters"].update(changes)


def in_input(**changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda data: data["nodes"][0]["parameters"].update(changes)


DAMAGE: dict[str, Callable[[dict[str, Any]], Any]] = {
    "no nodes": lambda d: d.pop("nodes"),
    "nodes of another type": lambda d: d.update(nodes=3),
    "nodes as text": lambda d: d.update(nodes="Lookup"),
    "empty nodes": lambda d: d.update(nodes=[]),
    "a node of another type": lambda d: d["nodes"].append(7),
    "no outputs": lambda d: d.update(outputs=[]),
    "an output outside": lambda d: d.update(outputs=[2]),
    "a negative output": lambda d: d.update(outputs=[-1]),
    "a fractional output": lambda d: d.update(outputs=[0.0]),
    "too many names": lambda d: d.update(output_names=["a", "b"]),
    "names missing": lambda d: d.pop("output_names"),
    "an unknown primitive": in_node(primitive="Explode"),
    "a primitive of another module": in_node(primitive="os.system"),
    "the base of the primitives": in_node(primitive="Primitive"),
    "a primitive of another type": in_node(primitive=["Add"]),
    "another primitive": in_node(primitive="Round"),
    "operands missing": in_node(inputs=[]),
    "too many operands": in_node(inputs=[0, 0]),
    "a later operand": in_node(inputs=[1]),
    "a far later operand": in_node(inputs=[10**30]),
    "a negative operand": in_node(inputs=[-1]),
    "a boolean operand": in_node(inputs=[False]),
    "an operand by name": in_node(inputs=["x"]),
    "label missing": lambda d: d["nodes"][1].pop("label"),
    "a parameter too many": in_parameters(__class__="object"),
    "a parameter missing": lambda d: d["nodes"][1]["parameters"].pop("table"),
    "parameters of another type": in_node(parameters=[1, 2]),
    "a step of zero": in_parameters(step=0),
    "a fractional start": in_parameters(start=0.5),
    "an infinite start": in_parameters(start=float("inf")),
    "an array in place of a number": in_parameters(
        start={"array": "", "dtype": "int64", "shape": [0]}
    ),
    "a number in place of an array": in_parameters(table=3),
    "an unknown kind of value": in_parameters(table={"pickle": "gASVAAAA"}),
    "a value of several kinds": in_parameters(table={"tuple": 3, "array": ""}),
    "truncated bytes": lambda d: in_table(array=d["nodes"][1]["parameters"]["table"]["array"][:-4])(
        d
    ),
    "bytes cut within a group": lambda d: in_table(
        array=d["nodes"][1]["parameters"]["table"]["array"][:-3]
    )(d),
    "bytes that are no base64": in_table(array="*" * 256),
    "bytes with strays between": lambda d: in_table(
        array="\n*" + d["nodes"][1]["parameters"]["table"]["array"]
    )(d),
    "bytes beyond ascii": in_table(array="ä" * 256),
    "bytes of another type": in_table(array=[1, 2]),
    "too many bytes": in_table(array=base64.b64encode(bytes(8 * 25)).decode()),
    "dtype object": in_table(dtype="object"),
    "dtype text": in_table(dtype="<U4"),
    "dtype void": in_table(dtype="V8"),
    "dtype of another type": in_table(dtype=["int64"]),
    "no dtype": lambda d: d["nodes"][1]["parameters"]["table"].pop("dtype"),
    "another dtype": in_table(dtype="float64"),
    "no shape": lambda d: d["nodes"][1]["parameters"]["table"].pop("shape"),
    "another shape": in_table(shape=[4, 3, 2]),
    "a huge shape": in_table(shape=[2**40, 2**40]),
    "a negative shape": in_table(shape=[-4, -6]),
    "a fractional shape": in_table(shape=[24.0]),
    "a shape of text": in_table(shape="24"),
    "more axes than arrays have": in_table(shape=[1] * 40 + [24]),
    "an empty array of huge extent": in_table(shape=[0, 2**62, 2**62], array=""),
    "a huge input": in_input(shape={"tuple": [2**20, 2**20]}),
    "an input of extent 2**70": in_input(shape={"tuple": [2**70]}),
    "an input with a shape of text": in_input(shape="ab"),
    "a nested shape": in_input(shape={"tuple": [{"tuple": [2]}]}),
    "an input of too many bits": in_input(hi=2**62),
    "an input of far too many bits": in_input(hi=10**400),
    "an input of no integers": in_input(lo=11),
    "a label that is no text": in_input(label={"tuple": []}),
    "a flag that is none": in_input(encrypted="yes"),
    "a clear circuit": in_input(encrypted=False),
    "a slice of two": big("Index", key={"tuple": [{"slice": [0, 1]}]}),
    "a slice of text": big("Index", key={"tuple": [{"slice": ["a", None, None]}]}),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_files_are_refused(name: str) -> None:
    data = saved()
    DAMAGE[name](data)
    with pytest.raises(FormatError):
        circuit_from_dict(data)
    with pytest.raises(FormatError):
        loads(json.dumps(data))


@pytest.mark.parametrize(
    ("case", "parameters"),
    [
        ("broadcast", {"shape": {"tuple": [2**30, 2, 3]}}),
        ("convolve", {"pads": {"tuple": [2**40, 0]}}),
        ("convolve", {"strides": {"tuple": [0]}}),
        ("convolve", {"groups": 0}),
        ("convolve", {"dilations": {"tuple": [2**40]}}),
        ("round", {"lsbs": 10**6}),
        ("round", {"lsbs": -1}),
        ("transpose", {"axes": {"tuple": [0, 0, 1]}}),
        ("sum", {"axes": {"tuple": [5]}}),
        ("index", {"key": {"tuple": [9]}}),
        ("index", {"key": 0}),
        ("concatenate", {"axis": 4}),
        ("reshape", {"shape": {"tuple": [-1]}}),
        ("assume", {"lo": encode(np.full((2, 3), 9))}),
    ],
)
def test_impossible_parameters_are_refused(case: str, parameters: dict[str, Any]) -> None:
    data = saved(case)
    data["nodes"][-1]["parameters"].update(parameters)
    with pytest.raises(FormatError):
        circuit_from_dict(data)


def test_inputs_of_one_name_are_refused() -> None:
    data = saved("add")
    data["nodes"][1] = dict(data["nodes"][0])
    with pytest.raises(FormatError, match="two inputs"):
        circuit_from_dict(data)


def test_a_small_file_cannot_ask_for_much_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    data = saved("broadcast")
    limit = 24 * 3
    monkeypatch.setattr("cipherlearn.circuit.serialize.MAXIMUM_TOTAL_ELEMENTS", limit)
    circuit_from_dict(data)
    more = {"primitive": "Add", "parameters": {}, "label": "", "inputs": [1, 1]}
    for _ in range(2):
        data["nodes"].append({**more, "inputs": [len(data["nodes"]) - 1] * 2})
    circuit_from_dict({**data, "nodes": data["nodes"][:-1]})
    with pytest.raises(FormatError, match=f"more than {limit} elements"):
        circuit_from_dict(data)


def test_deep_nesting_is_refused() -> None:
    shape: Any = 1
    for _ in range(10**5):
        shape = {"tuple": [shape]}
    data = saved()
    in_input(shape=shape)(data)
    with pytest.raises(FormatError, match="damaged"):
        circuit_from_dict(data)


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
json_values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["array", "dtype", "shape", "slice", "tuple"]), inner, max_size=3
        )
    ),
    max_leaves=6,
)


@settings(max_examples=300)
@given(st.data())
def test_any_change_gives_a_circuit_or_a_format_error(data: st.DataObject) -> None:
    description = saved(data.draw(st.sampled_from(sorted(CASES))))
    place: Any = description
    while True:
        key = data.draw(
            st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place)))
        )
        inner = place[key]
        if not isinstance(inner, (dict, list)) or not inner or data.draw(st.booleans()):
            break
        place = inner
    place[key] = data.draw(json_values)
    try:
        circuit = circuit_from_dict(description)
    except FormatError:
        return
    assert_same(loads(dumps(circuit)), circuit)


@pytest.mark.parametrize(
    "value",
    [
        np.arange(6, dtype=np.int8).reshape(2, 3),
        np.arange(6).reshape(2, 3).T,
        np.array(5, dtype=np.uint16),
        np.zeros((0, 3), dtype=np.float32),
        np.array([1.5, np.nan, np.inf]),
        np.array([True, False]),
        np.arange(3, dtype=">i4"),
    ],
)
def test_arrays_come_back(value: np.ndarray) -> None:
    found = decode(json.loads(json.dumps(encode(value))))
    assert found.dtype == value.dtype.newbyteorder("=")
    assert found.shape == value.shape
    np.testing.assert_array_equal(found, value)
    found[...] = 0  # a loaded array is an array like any other


@pytest.mark.parametrize("dtype", ["complex128", "datetime64[s]", "object", "float16", "O8", "V8"])
def test_arrays_of_other_types_do_not_come_back(dtype: str) -> None:
    data = base64.b64encode(bytes(16 * 6)).decode()
    with pytest.raises(FormatError, match="is not accepted"):
        decode({"array": data, "dtype": dtype, "shape": [6]})


@pytest.mark.parametrize(
    "value", [None, True, 3, -(2**70), 0.1, "text", (), (1, (2, "x")), slice(None, 3, -1), slice(4)]
)
def test_other_values_come_back(value: object) -> None:
    assert decode(json.loads(json.dumps(encode(value)))) == value


def test_lists_and_numbers_of_numpy_become_plain() -> None:
    assert decode(encode([1, np.int8(2), np.float32(0.5)])) == (1, 2, 0.5)


@pytest.mark.parametrize(
    "value", [np.array([{}]), np.array(["a"]), np.array([1j]), np.array([None])]
)
def test_arrays_of_anything_else_are_not_saved(value: np.ndarray) -> None:
    with pytest.raises(InvalidTypeError, match="cannot be saved"):
        encode(value)


def test_json_is_parsed() -> None:
    assert parse_json(b'{"a": [1, 2.5, null]}') == {"a": [1, 2.5, None]}


def test_data_is_plain_json() -> None:
    data = circuit_to_dict(circuit_of("index by an array"))
    assert json.loads(json.dumps(data)) == data
    assert {entry["primitive"] for entry in data["nodes"]} <= set(ir.PRIMITIVES)
