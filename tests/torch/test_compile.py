from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from cipherlearn.circuit import count_lookups
from cipherlearn.engines.clear import ClearEngine
from cipherlearn.errors import (
    CipherlearnError,
    CompilationError,
    InvalidParameterError,
    InvalidShapeError,
    InvalidTypeError,
    ModelFormatError,
    NotCompiledError,
    UnknownKeyError,
    UnquantizedTensorError,
    UnsupportedOperatorError,
)
from cipherlearn.quantization import QuantizedModule
from cipherlearn.torch import (
    NumpyModule,
    build_quantized_module,
    compile,  # noqa: A004 - the module
    compile_onnx_model,
    compile_torch_model,
)
from tests.onnx_models import make_model, node, perceptron, weights

X = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)


@pytest.fixture
def clear(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compile for the engine without encryption."""
    monkeypatch.setattr(
        "cipherlearn.quantization.circuit_model.get_engine", lambda name: ClearEngine()
    )


@pytest.fixture(scope="module")
def small() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU(), torch.nn.Linear(3, 2))


@pytest.fixture(scope="module")
def digits() -> tuple[onnx.ModelProto, np.ndarray, np.ndarray, np.ndarray]:
    """A network trained on real digits, as ONNX, with rows to calibrate and to test on."""
    images, labels = load_digits(return_X_y=True)
    images = (images / 16.0).astype(np.float32)
    train, test, train_labels, test_labels = train_test_split(
        images, labels, test_size=450, random_state=0
    )
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Linear(64, 32),
        torch.nn.ReLU(),
        torch.nn.Linear(32, 32),
        torch.nn.ReLU(),
        torch.nn.Linear(32, 10),
    )
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    x, y = torch.tensor(train), torch.tensor(train_labels)
    for _ in range(60):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(x), y).backward()
        optimizer.step()
    return NumpyModule(network, x[:1]).onnx_model, train[:300], test, test_labels


def accuracy(module: QuantizedModule, rows: np.ndarray, labels: np.ndarray) -> float:
    return float(np.mean(module.forward(rows).argmax(1) == labels))


@pytest.mark.usefixtures("clear")
def test_a_torch_module_becomes_a_compiled_module(small: torch.nn.Module) -> None:
    module = compile_torch_model(small, torch.tensor(X), n_bits=7)
    assert module.is_compiled
    assert module.fhe_circuit is not None
    assert not module.fhe_circuit.has_keys
    with torch.no_grad():
        truth = small(torch.tensor(X)).numpy()
    found = module.forward(X)
    np.testing.assert_allclose(found, truth, atol=0.05 * np.ptp(truth))
    np.testing.assert_array_equal(module.forward(X[:2], fhe="execute"), found[:2])
    assert module.agreement(X)["quantized"].as_float is not None


@pytest.mark.usefixtures("clear")
def test_modules_of_several_inputs_and_outputs() -> None:
    class Two(torch.nn.Module):
        def forward(self, x: torch.Tensor, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return x + z, torch.relu(x)

    module = compile_torch_model(
        Two(),
        (torch.tensor(X), X[::-1].copy()),
        n_bits=8,
        inputs_encryption_status=["encrypted", "clear"],
    )
    assert module.ordered_module_input_names == ("x", "z")
    assert [i.encrypted for i in module.circuit.inputs] == [True, False]
    total, positive = module.forward(X, X[::-1])
    np.testing.assert_allclose(total, X + X[::-1], atol=0.06)
    np.testing.assert_allclose(positive, np.maximum(X, 0), atol=0.03)


@pytest.mark.usefixtures("clear")
def test_onnx_models_in_memory_as_bytes_and_as_files(tmp_path: Path) -> None:
    model = perceptron()
    path = tmp_path / "model.onnx"
    onnx.save_model(model, path)
    outputs = [
        compile_onnx_model(source, X, n_bits=6).forward(X)
        for source in (model, model.SerializeToString(), path, str(path))
    ]
    for other in outputs[1:]:
        np.testing.assert_array_equal(other, outputs[0])


def test_a_module_can_be_built_without_compiling() -> None:
    module = build_quantized_module(perceptron(), X, n_bits=6)
    assert not module.is_compiled
    with pytest.raises(NotCompiledError):
        module.forward(X, fhe="execute")
    assert module.numpy_model is not None
    assert build_quantized_module(perceptron(), X, keep_onnx=False).numpy_model is None


def test_options_reach_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    class Engine(ClearEngine):
        def compile(self, circuit: Any, options: Any = None) -> Any:
            seen.append(options)
            return super().compile(circuit)

    monkeypatch.setattr("cipherlearn.quantization.circuit_model.get_engine", lambda name: Engine())
    marker = object()
    compile_onnx_model(
        perceptron(),
        X,
        configuration=marker,
        artifacts=marker,
        show_mlir=True,
        global_p_error=0.01,
        verbose=True,
        reduce_sum_copy=True,
    )
    (options,) = seen
    assert options.configuration is marker
    assert options.artifacts is marker
    assert (options.p_error, options.global_p_error) == (None, 0.01)
    assert (options.show_mlir, options.verbose, options.device) == (True, True, "cpu")


def test_the_engine_runs_what_was_compiled(small: torch.nn.Module) -> None:
    rows = X[:30]
    module = compile_torch_model(
        small, rows, n_bits=2, rounding_threshold_bits={"n_bits": 3, "method": "approximate"}
    )
    assert module.fhe_circuit is not None
    assert module.fhe_circuit.p_error <= 2.0**-40
    simulated = module.forward(rows, fhe="simulate")
    assert simulated.shape == (30, 2)
    table = module.agreement(rows, n_fhe=2)
    assert table["FHE"].wrong == 0
    module.fhe_circuit.close()


@pytest.mark.filterwarnings("ignore::cipherlearn.errors.OverflowWarning")
@pytest.mark.parametrize(
    ("bits", "rounding", "least", "widths"),
    [
        (6, None, 0.93, None),
        (6, {"n_bits": 6, "method": "approximate"}, 0.93, {6}),
        (6, {"n_bits": 4, "method": "APPROXIMATE"}, 0.92, {4}),
        (4, 4, 0.91, {4}),
    ],
)
def test_digits_are_read_as_well_as_by_the_float_network(
    digits: Any, bits: int, rounding: Any, least: float, widths: set[int] | None
) -> None:
    model, train, test, labels = digits
    module = build_quantized_module(model, train, n_bits=bits, rounding_threshold_bits=rounding)
    reference = np.mean(NumpyModule(model).forward(test).argmax(1) == labels)
    found = accuracy(module, test, labels)
    assert found >= least
    assert found >= reference - 0.03
    if widths is not None:
        assert set(count_lookups(module.circuit).by_width) == widths


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::cipherlearn.errors.OverflowWarning")
def test_bits_are_chosen_unless_they_are_given(digits: Any) -> None:
    model, train, test, labels = digits
    module = build_quantized_module(model, train, max_drop=0.05)
    assert module.search is not None
    assert module.search.missed_by == 0
    assert accuracy(module, test, labels) >= 0.88
    assert build_quantized_module(model, train, n_bits=4).search is None


@pytest.mark.filterwarnings("ignore::cipherlearn.errors.OverflowWarning")
@pytest.mark.parametrize("method", [pytest.param("exact", marks=pytest.mark.slow), "approximate"])
def test_auto_rounding_chooses_what_is_kept(digits: Any, method: str) -> None:
    model, train, test, labels = digits
    module = build_quantized_module(
        model,
        train,
        n_bits=4,
        rounding_threshold_bits={"n_bits": "auto", "method": method},
        max_drop=0.05,
    )
    assert module.search is not None
    for point in module.search.points:
        bits = [point.candidate.common, *(bits for _, bits in point.candidate.single)]
        assert {(b.weights, b.inputs, b.exact) for b in bits} == {(4, 4, method == "exact")}
    assert accuracy(module, test, labels) >= 0.88


def test_kept_bits_can_be_given_alone(digits: Any) -> None:
    model, train, _, _ = digits
    rounding = {"n_bits": 4, "method": "approximate"}
    module = build_quantized_module(model, train, rounding_threshold_bits=rounding, max_drop=0.05)
    assert set(count_lookups(module.circuit).by_width) == {4}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_bits": "best"}, "n_bits is a number of bits, a dictionary or 'auto', not 'best'"),
        ({"n_bits": 4, "labels": [0, 1]}, "labels would change nothing"),
        ({"n_bits": 4, "max_seconds": 1.0}, "max_seconds would change nothing"),
        ({"n_bits": 4, "max_drop": 0.05}, "max_drop would change nothing"),
        ({"import_qat": True, "max_drop": 0.05}, "max_drop would change nothing"),
        ({"import_qat": True, "labels": [0, 1]}, "labels would change nothing"),
        ({"n_bits": 4, "max_drop": -5}, "max_drop is a share"),
        ({"bounds": "sure"}, r"bounds must be one of \['observed', 'proved'\]"),
        ({"import_qat": True, "distill": True}, "distill=True chooses weights anew"),
    ],
)
def test_options_that_do_not_go_together(options: Any, message: str) -> None:
    with pytest.raises(InvalidParameterError, match=message):
        build_quantized_module(perceptron(), X, **options)


@pytest.mark.parametrize("bits", [{"n_bits": 3, "rounding_threshold_bits": 2}, {"max_drop": 0.2}])
def test_the_chosen_bits_are_distilled(monkeypatch: pytest.MonkeyPatch, bits: Any) -> None:
    seen: list[Any] = []

    def distill(converter: Any, *data: Any, keep_onnx: bool, options: Any) -> QuantizedModule:
        assert options.p_error == 1e-3
        seen.append((converter, keep_onnx))
        return converter.quantize_module(*data, keep_onnx=keep_onnx)  # type: ignore[no-any-return]

    monkeypatch.setattr("cipherlearn.torch.distillation.distill", distill)
    module = compile_onnx_model(perceptron(), X, distill=True, p_error=1e-3, **bits)
    ((converter, keep_onnx),) = seen
    assert keep_onnx
    assert (module.search is None) == ("n_bits" in bits)
    if module.search is not None:
        assert converter.rounding_of("any") == module.search.chosen.candidate.common.rounding
    np.testing.assert_array_equal(converter.quantize_module(X).forward(X), module.forward(X))


def test_what_cannot_be_compiled_says_why() -> None:
    model = make_model(
        [node("Gemm", ["x", "w"], "h"), node("Relu", ["h"], "r"), node("Gemm", ["r", "v"], "y")],
        {"x": ["N", 64]},
        ["y"],
        {"w": weights(64, 8), "v": weights(8, 2)},
    )
    data = np.random.default_rng(0).normal(size=(50, 64)).astype(np.float32)
    with pytest.raises(CompilationError, match="no bits were found that can be compiled; weights"):
        build_quantized_module(model, data, n_bits=14, rounding_threshold_bits="auto")


@pytest.mark.slow
def test_the_same_data_gives_the_same_module(digits: Any) -> None:
    model, train, _, _ = digits
    first, second = (build_quantized_module(model, train, max_drop=0.05) for _ in range(2))
    assert first.dumps() == second.dumps()


@pytest.mark.usefixtures("clear")
def test_networks_that_quantize_themselves_are_imported() -> None:
    step, grid = np.float32(0.25), np.array([[1, -2], [3, 0], [-4, 2], [1, 1]], np.float32) / 8
    nodes = [
        node("Div", ["x", "s"], "d"),
        node("Round", ["d"], "r"),
        node("Mul", ["r", "s"], "q"),
        node("Gemm", ["q", "w"], "y"),
    ]
    model = make_model(nodes, {"x": ["N", 4]}, ["y"], {"s": step, "w": grid})
    bits = {"model_inputs": 8, "op_inputs": 6, "op_weights": 3}
    module = compile_onnx_model(model, X, import_qat=True, n_bits=bits)
    by_itself = compile_onnx_model(model, X, import_qat=True)
    np.testing.assert_array_equal(by_itself.forward(X), module.forward(X))
    (*_, (_, op)) = module.quant_layers_dict.values()
    np.testing.assert_array_equal(op.constant_inputs[1].qvalues, grid * 8)
    with pytest.raises(UnquantizedTensorError, match="w"):
        compile_onnx_model(perceptron(), X, import_qat=True, n_bits=bits)


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"n_bits": 0}, InvalidParameterError, "n_bits must lie between 1 and 16"),
        ({"n_bits": 8.0}, InvalidParameterError, "n_bits must be an integer"),
        ({"n_bits": {"op_inputs": 4}}, InvalidParameterError, "mandatory keys"),
        ({"n_bits": {"op_inputs": 4, "op_weights": 4, "z": 1}}, UnknownKeyError, "'z'"),
        ({"rounding_threshold_bits": 9}, InvalidParameterError, "between 2 and 8"),
        ({"rounding_threshold_bits": {"bits": 3}}, UnknownKeyError, "'bits'"),
        ({"p_error": 0.1, "global_p_error": 0.1}, InvalidParameterError, "not both"),
        ({"p_error": 2.0}, InvalidParameterError, "between 0 and 1"),
        ({"device": "tpu"}, InvalidParameterError, "unknown device 'tpu'"),
    ],
)
def test_bad_options_are_refused_before_anything_is_exported(
    monkeypatch: pytest.MonkeyPatch, options: Any, kind: type[CipherlearnError], message: str
) -> None:
    monkeypatch.setattr(compile, "NumpyModule", lambda *a, **k: pytest.fail("exported"))
    with pytest.raises(kind, match=message):
        compile_torch_model(torch.nn.Linear(4, 2), X, **options)
    with pytest.raises(kind, match=message):
        compile_onnx_model(perceptron(), X, **options)


@pytest.mark.usefixtures("clear")
def test_a_bad_encryption_status_is_refused() -> None:
    with pytest.raises(InvalidParameterError, match="for each of the 1 inputs"):
        compile_onnx_model(perceptron(), X, inputs_encryption_status=["encrypted", "clear"])
    for status in (["clear"], ["secret"], 5, []):
        with pytest.raises(InvalidParameterError, match="'clear' or 'encrypted'"):
            compile_onnx_model(perceptron(), X, inputs_encryption_status=status)


@pytest.mark.parametrize(
    ("data", "kind", "message"),
    [
        (X[:0], InvalidParameterError, r"shape \(0, 4\) has no rows"),
        (X[:1], InvalidParameterError, "has 1 row; ranges need"),
        ((), InvalidShapeError, "the input-set is empty"),
        ((X, X), InvalidShapeError, "2 arrays were given; the model takes 1"),
        (np.where(X > 1, np.nan, X), InvalidParameterError, "NaN or infinite"),
        (np.where(X > 1, np.inf, X), InvalidParameterError, "NaN or infinite"),
        (X.astype(np.int64), InvalidTypeError, "dtype int64; floating-point values are needed"),
        (torch.tensor(X).int(), InvalidTypeError, "dtype int32; floating-point"),
        (X > 0, InvalidTypeError, "dtype bool"),
        (None, InvalidTypeError, "dtype object"),
        ("rows", InvalidTypeError, "dtype <U4"),
        (X[:, :3], InvalidShapeError, "'x' takes arrays of shape"),
        (X[0], InvalidShapeError, "'x' takes arrays of shape"),
        (np.float32(3), InvalidParameterError, "has no rows"),
    ],
)
def test_bad_data_is_refused(data: Any, kind: type[CipherlearnError], message: str) -> None:
    with pytest.raises(kind, match=message):
        compile_onnx_model(perceptron(), data)


@pytest.mark.parametrize("model", [None, 3, perceptron(), "model.onnx", torch.nn.Linear])
def test_what_is_no_torch_module_is_refused(model: Any) -> None:
    with pytest.raises(InvalidTypeError, match=r"takes a torch\.nn\.Module, not .*compile_onnx_mo"):
        compile_torch_model(model, X)


@pytest.mark.parametrize(
    ("model", "kind"),
    [
        (b"nothing", ModelFormatError),
        (b"", ModelFormatError),
        (perceptron().SerializeToString()[:60], ModelFormatError),
        ("/nowhere/model.onnx", ModelFormatError),
        (torch.nn.Linear(4, 2), InvalidTypeError),
        (3, InvalidTypeError),
    ],
)
def test_what_is_no_onnx_model_is_refused(model: Any, kind: type[CipherlearnError]) -> None:
    with pytest.raises(kind):
        compile_onnx_model(model, X)


def test_external_data_that_is_missing_is_told(tmp_path: Path) -> None:
    model = make_model(
        [node("Gemm", ["x", "w"], "y")], {"x": ["N", 400]}, ["y"], {"w": weights(400, 3)}
    )
    path = tmp_path / "model.onnx"
    onnx.save_model(model, path, save_as_external_data=True, location="w.bin", size_threshold=0)
    (tmp_path / "w.bin").unlink()
    with pytest.raises(ModelFormatError, match=r"w\.bin"):
        compile_onnx_model(path, np.ones((3, 400), np.float32))


def test_all_unknown_operators_are_listed_at_once() -> None:
    model = make_model(
        [
            node("Foo", ["x"], "a", domain="other", name="first"),
            node("Bar", ["a"], "y", domain="other", name="second"),
        ],
        {"x": ["N", 4]},
        ["y"],
        domains=["other"],
    )
    with pytest.raises(UnsupportedOperatorError) as caught:
        compile_onnx_model(model, X)
    for word in ("other.Foo", "'first'", "other.Bar", "'second'", "Supported operators: Abs"):
        assert word in str(caught.value)


def test_tensors_become_arrays() -> None:
    convert = compile.convert_torch_tensor_or_numpy_array_to_numpy_array
    tensor = torch.tensor([1.0, 2.0], requires_grad=True)
    np.testing.assert_array_equal(convert(tensor), [1.0, 2.0])
    assert convert(X) is X


def test_the_last_layer_needs_no_lookups_for_rows_that_are_matrices() -> None:
    torch.manual_seed(0)
    x = np.random.default_rng(0).normal(size=(60, 3, 4)).astype(np.float32)
    net = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.ReLU(), torch.nn.Linear(5, 2))
    module = build_quantized_module(net, x, n_bits=6)
    assert count_lookups(module.circuit).total == 3 * 5
    with torch.no_grad():
        wanted = net(torch.tensor(x)).numpy()
    assert np.abs(module.forward(x) - wanted).max() < 0.1
    alone = build_quantized_module(net[:1], x, n_bits=6)
    assert count_lookups(alone.circuit).total == 0
