from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cipherlearn.circuit import Circuit, count_lookups
from cipherlearn.engines import CompileOptions, Program, estimate, get_engine
from cipherlearn.errors import (
    CompilationError,
    CostWarning,
    InvalidParameterError,
    InvalidShapeError,
    ModelError,
    NoParametersError,
    SelfCheckError,
)
from cipherlearn.sklearn.encoding import FeatureCode, OrdinalCode
from cipherlearn.sklearn.links import Softmax
from cipherlearn.sklearn.trees import module as trees_module
from cipherlearn.sklearn.trees.cover import cover_ensemble
from cipherlearn.sklearn.trees.ensemble import TreeEnsemble
from cipherlearn.sklearn.trees.module import TreeModule
from cipherlearn.sklearn.trees.program import Planes
from cipherlearn.sklearn.trees.quantized import QuantizedTrees
from tests.sklearn.trees.ensembles import case, full_tree


@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("sums", [True, False])
def test_scores_are_those_of_the_trees_up_to_rounded_leaves(outputs: int, sums: bool) -> None:
    ensemble, codes, rows = case(outputs=outputs)
    for bits in (2, 4, 8):
        module = TreeModule(QuantizedTrees.of(ensemble, codes, bits), sums=sums)
        error = np.abs(module.forward(rows) - ensemble.raw_scores(rows)).max()
        assert error <= len(ensemble.trees) * module.trees.scale.max() / 2 + 1e-12


def test_values_of_each_output_have_a_scale_of_their_own() -> None:
    ensemble, codes, rows = case(outputs=2)
    unit = np.array([1.0, 1e4])
    trees = [replace(tree, values=tree.values * unit) for tree in ensemble.trees]
    wide = replace(ensemble, trees=trees)
    for sums in (True, False):
        scores = TreeModule(QuantizedTrees.of(wide, codes, 8), sums=sums).forward(rows)
        error = np.abs(scores - wide.raw_scores(rows)).max(axis=0)
        assert (error < 0.05 * unit).all()
    one = TreeModule(QuantizedTrees.of(replace(wide, link=Softmax()), codes, 8))
    assert one.trees.scale[0] == one.trees.scale[1]


def test_many_rows_are_evaluated_piece_by_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    ensemble, codes, rows = case()
    module = TreeModule(QuantizedTrees.of(ensemble, codes, 4))
    expected = module.forward(rows)
    monkeypatch.setattr(trees_module, "CHUNK_ROWS", 7)
    np.testing.assert_array_equal(module.forward(rows), expected)


def test_many_lookups_are_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    ensemble, codes, _ = case()
    monkeypatch.setattr(estimate, "MANY_LOOKUPS", 3)
    with pytest.warns(CostWarning, match=r"need \d+ table look-ups .* s on this .*max_depth"):
        TreeModule(QuantizedTrees.of(ensemble, codes, 4)).compile(engine="clear")


def test_no_input_stays_clear() -> None:
    ensemble, codes, _ = case()
    module = TreeModule(QuantizedTrees.of(ensemble, codes, 4))
    status = ["encrypted"] * len(module.circuit.inputs)
    with pytest.raises(InvalidParameterError, match="encrypted together"):
        module.compile(inputs_encryption_status=["clear", *status[1:], "encrypted"], engine="clear")
    module.compile(inputs_encryption_status=status, engine="clear")


def test_trees_of_one_value_need_no_scale() -> None:
    ensemble, codes, rows = case()
    flat = [replace(t, values=np.where(t.values != 0, 2.5, 0.0)) for t in ensemble.trees]
    constant = replace(ensemble, trees=flat)
    module = TreeModule(QuantizedTrees.of(constant, codes, 4))
    np.testing.assert_allclose(module.forward(rows), constant.raw_scores(rows))


def test_compiling_takes_the_cheapest_tables_and_changes_no_result() -> None:
    ensemble, codes, rows = case(3)
    module = TreeModule(QuantizedTrees.of(ensemble, codes, 5))
    before = module.forward(rows)
    program = module.compile(p_error=2**-20)
    np.testing.assert_array_equal(module.forward(rows), before)
    np.testing.assert_array_equal(module.forward(rows, fhe="simulate"), before)
    complexities = []
    for width in (2, 3, 4, 5, 6):
        other = TreeModule(QuantizedTrees.of(ensemble, codes, 5))
        other.use_width(width)
        options = CompileOptions.of(2**-20)
        complexities.append(get_engine("concrete").compile(other.circuit, options).complexity)
    assert program.complexity == min(complexities)


@pytest.mark.parametrize("depth", [4, 6, 7])
def test_deep_symmetric_trees_are_one_table_each(depth: int) -> None:
    rng = np.random.default_rng(depth)
    codes: list[FeatureCode] = [OrdinalCode.between(np.array([0.5])) for _ in range(9)]
    features = [rng.permutation(9)[:depth].tolist() for _ in range(3)]
    trees = [full_tree(f, rng.integers(-9, 9, size=2**depth).tolist()) for f in features]
    module = TreeModule(QuantizedTrees.of(TreeEnsemble(trees, np.zeros(1), 9), codes, 5))
    assert module.cover.n_lookups == 3
    module.compile()
    assert module.cover.n_lookups == 3
    rows = rng.integers(0, 2, size=(50, 9)).astype(float)
    assert module.forward(rows).shape == (50, 1)


def test_no_circuit_is_compiled_twice() -> None:
    engine, compiled = get_engine("clear"), []

    class Counting(type(engine)):  # type: ignore[misc]
        def compile(self, circuit: Circuit, options: CompileOptions | None = None) -> Program:
            compiled.append(str(circuit))
            return super().compile(circuit, options)

    ensemble, codes, _ = case(3)
    module = TreeModule(QuantizedTrees.of(ensemble, codes, 5))
    program = module._compiled(Counting(), CompileOptions.of(2**-20))
    assert len(set(compiled)) == len(compiled) >= 1
    assert program.complexity == engine.compile(module.circuit).complexity


@pytest.mark.parametrize("sums", [True, False])
def test_encrypted_rows_give_the_exact_scores(sums: bool) -> None:
    ensemble, codes, rows = case(4, outputs=2)
    module = TreeModule(QuantizedTrees.of(ensemble, codes, 3), sums=sums)
    module.compile(p_error=2**-20)
    np.testing.assert_array_equal(module.forward(rows[:3], fhe="execute"), module.forward(rows[:3]))
    assert count_lookups(module.circuit).total == module.cover.n_lookups


def test_rows_of_another_shape_are_refused() -> None:
    ensemble, codes, rows = case()
    module = TreeModule(QuantizedTrees.of(ensemble, codes, 3))
    with pytest.raises(InvalidShapeError, match=r"must be \(rows, 5\)"):
        module.forward(rows[:, :3])
    with pytest.raises(InvalidShapeError, match="trees take one"):
        module.quantize_input(rows, rows)


def test_planes_of_what_is_used_hold_what_the_circuit_reads() -> None:
    ensemble, codes, rows = case(seed=0)
    every, used = (
        TreeModule(QuantizedTrees.of(ensemble, codes, 4), planes=p) for p in (None, "used")
    )
    np.testing.assert_array_equal(every.forward(rows), used.forward(rows))
    n_bits = sum(code.n_bits for code in codes)
    assert every.input_shapes == ((1, n_bits), (1, n_bits))
    assert used.input_shapes == ((1, len(used.planes.looked_up)), (1, len(used.planes.added)))
    assert 0 < len(used.planes.looked_up) < n_bits


def test_look_ups_read_a_plane_of_their_own() -> None:
    ensemble, codes, rows = case(seed=0)
    whole = TreeModule(QuantizedTrees.of(ensemble, codes, 4))
    needed = TreeModule(QuantizedTrees.of(ensemble, codes, 4), planes="used").planes.looked_up
    module = TreeModule(QuantizedTrees.of(ensemble, codes, 4), planes=Planes.public(codes, needed))
    assert module.input_shapes[0] == (1, len(needed))
    assert module.input_shapes[1] == whole.input_shapes[1]
    np.testing.assert_array_equal(module.forward(rows), whole.forward(rows))


def test_a_width_without_parameters_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    ensemble, codes, rows = case(seed=2)
    module = TreeModule(QuantizedTrees.of(ensemble, codes, 4))
    engine = get_engine("clear")
    compile_one, given = engine.compile, []

    def sometimes(circuit: Circuit, options: CompileOptions | None = None) -> Program:
        given.append(circuit)
        if len(given) == 1:
            raise NoParametersError("none for the first")
        return compile_one(circuit, options)

    monkeypatch.setattr(module, "_promising_widths", lambda: [2, 3, 4])
    monkeypatch.setattr(engine, "compile", sometimes)
    module._compiled(engine, CompileOptions.of())
    assert len(given) > 1
    np.testing.assert_array_equal(module.forward(rows), module.trees.scores(rows))
    monkeypatch.setattr(engine, "compile", lambda *_: _raise(NoParametersError("none at all")))
    with pytest.raises(NoParametersError, match="none at all"):
        module._compiled(engine, CompileOptions.of())


def _raise(error: Exception) -> Program:
    raise error


def test_what_is_the_same_for_all_rows_is_not_compiled() -> None:
    ensemble, codes, _ = case()
    constant = replace(ensemble, trees=[replace(t, values=0 * t.values) for t in ensemble.trees])
    module = TreeModule(QuantizedTrees.of(constant, codes, 4))
    with pytest.raises(CompilationError, match="same for all rows"):
        module.compile()
    module.compile(engine="clear")  # which takes it


def test_a_circuit_of_other_trees_is_noticed() -> None:
    ensemble, codes, _ = case(seed=0)
    module = TreeModule(QuantizedTrees.of(ensemble, codes, 4))
    other, _, _ = case(seed=0)
    shifted = [replace(t, values=t.values[::-1]) for t in other.trees]
    cover = cover_ensemble(
        QuantizedTrees.of(replace(other, trees=shifted), codes, 4).ensemble, codes, 4
    )
    with pytest.raises(SelfCheckError, match="what the trees give"):
        module._use(cover)


def test_bits_that_are_not_sent_cannot_be_read() -> None:
    ensemble, codes, _ = case(seed=0)
    few = Planes.public(codes, np.arange(3))
    with pytest.raises(ModelError, match="not to send"):
        TreeModule(QuantizedTrees.of(ensemble, codes, 4), planes=few)
