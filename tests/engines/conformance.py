"""What every engine must do: subclass `Conformance`, set ``engine``, and collect the class."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pytest

from cipherlearn.circuit import Circuit, allowed_results, count_lookups, evaluate
from cipherlearn.engines import CompileOptions, Engine, Program, get_engine
from cipherlearn.errors import (
    EngineError,
    InvalidParameterError,
    InvalidShapeError,
    InvalidTypeError,
)
from tests.engines.cases import CASES, build

#: Cases that make look-ups which are not one for one those of the circuit.
COUNTED = sorted(
    {"lookups", "lookups_that_differ_by_element", "rounded_lookups", "several_layers", "totals"}
)


def inputs_of(circuit: Circuit, seed: int = 0, rows: int = 3) -> list[np.ndarray]:
    """A batch that the circuit takes without overflows, with its smallest and largest integers."""
    generator = np.random.default_rng(seed)
    batches = []
    for known in circuit.inputs:
        batch = generator.integers(known.lo, known.hi, (rows + 2, *known.shape), endpoint=True)
        batch[-2], batch[-1] = known.lo, known.hi
        batches.append(batch)
    kept = [
        row
        for row in range(rows + 2)
        if not evaluate(circuit, *(batch[row : row + 1] for batch in batches)).overflow_count
    ]
    return [batch[kept] for batch in batches]


def check_rows(program: Program, inputs: list[np.ndarray]) -> None:
    """Encrypt, run and decrypt each row; compare with what the exact evaluator allows."""
    allowed = allowed_results(program.circuit, *inputs)
    for row in range(inputs[0].shape[0]):
        results = program.encrypt_run_decrypt(*(batch[row] for batch in inputs))
        found = results if isinstance(results, tuple) else (results,)
        for value, (lowest, highest) in zip(found, allowed, strict=True):
            assert value.dtype == np.int64
            assert value.shape == lowest[row].shape
            assert (value >= lowest[row]).all(), (value, lowest[row])
            assert (value <= highest[row]).all(), (value, highest[row])


def check_circuit(engine: Engine, circuit: Circuit, seed: int = 0, rows: int = 2) -> None:
    """Compile a circuit and check a few rows."""
    with engine.compile(circuit) as program:
        program.keygen(seed=seed)
        check_rows(program, inputs_of(circuit, seed, rows))


class Conformance:
    """Tests of one engine."""

    engine: ClassVar[Engine]

    @pytest.fixture(scope="class")
    @classmethod
    def program(cls) -> Program:
        program = cls.engine.compile(build("several_layers"))
        program.keygen(seed=1)
        return program

    @pytest.fixture(scope="class")
    @classmethod
    def two_inputs(cls) -> Program:
        program = cls.engine.compile(build("sums_and_differences"))
        program.keygen()
        return program

    @pytest.mark.parametrize("name", sorted(CASES))
    def test_results_are_those_of_the_exact_evaluator(self, name: str) -> None:
        check_circuit(self.engine, build(name))

    def test_the_engine_is_found_by_its_name(self) -> None:
        assert isinstance(get_engine(self.engine.name), type(self.engine))
        assert self.engine.is_available()

    @pytest.mark.parametrize("action", ["encrypt", "run", "decrypt", "encrypt_run_decrypt"])
    def test_keys_are_needed_first(self, action: str) -> None:
        with self.engine.compile(build("bits_of_inputs")) as program:
            assert not program.has_keys
            with pytest.raises(EngineError, match="keygen"):
                getattr(program, action)([[0, 1, 0, 1, 0, 1]])

    def test_keys_are_kept_unless_new_ones_are_forced(self, program: Program) -> None:
        encrypted = program.encrypt([[0, 1, 2, 3]])
        before = program.decrypt(program.run(encrypted))
        program.keygen()
        assert np.array_equal(program.decrypt(program.run(encrypted)), before)

    def test_equal_seeds_make_equal_keys(self, program: Program) -> None:
        with self.engine.compile(program.circuit) as other:
            other.keygen(seed=1)
            results = program.run(program.encrypt([[3, 2, 1, 0]]))
            assert np.array_equal(other.decrypt(results), program.decrypt(results))

    @pytest.mark.parametrize(
        ("sample", "error", "message"),
        [
            ([[0, 1, 2, 4]], InvalidParameterError, "0 to 3"),
            ([[0, -1, 2, 3]], InvalidParameterError, "0 to 3"),
            ([[0.0, 1.0, 2.0, 3.0]], InvalidTypeError, "float64"),
            ([0, 1, 2, 3], InvalidShapeError, "one sample"),
            ([[[0, 1, 2, 3]]], InvalidShapeError, "one sample"),
        ],
    )
    def test_wrong_integers_are_refused(
        self, program: Program, sample: list[object], error: type[Exception], message: str
    ) -> None:
        with pytest.raises(error, match=message):
            program.encrypt(sample)
        with pytest.raises(error, match=message):
            program.simulate(sample)

    def test_a_wrong_number_of_integers_is_refused(self, two_inputs: Program) -> None:
        with pytest.raises(InvalidShapeError, match="takes 2"):
            two_inputs.encrypt(np.zeros((2, 3), dtype=np.int64))

    @pytest.mark.parametrize("action", ["run", "decrypt"])
    def test_what_is_not_encrypted_is_refused(self, program: Program, action: str) -> None:
        with pytest.raises(InvalidTypeError, match="ndarray"):
            getattr(program, action)(np.zeros((1, 4), dtype=np.int64))

    def test_a_wrong_number_of_encrypted_values_is_refused(self, two_inputs: Program) -> None:
        zeros = np.zeros((2, 3), dtype=np.int64), np.zeros((1, 3), dtype=np.int64)
        encrypted = two_inputs.encrypt(*zeros)
        assert isinstance(encrypted, tuple)
        assert len(encrypted) == 2
        with pytest.raises(InvalidShapeError):
            two_inputs.run(encrypted[0])
        with pytest.raises(InvalidShapeError):
            two_inputs.decrypt(encrypted)

    def test_values_may_be_given_as_tuple_or_one_by_one(self, two_inputs: Program) -> None:
        sample = np.ones((2, 3), dtype=np.int64), np.ones((1, 3), dtype=np.int64)
        encrypted = two_inputs.encrypt(*sample)
        one = two_inputs.decrypt(two_inputs.run(encrypted))
        assert np.array_equal(one, two_inputs.decrypt(two_inputs.run(*encrypted)))

    def test_figures_are_known_before_keys(self) -> None:
        with self.engine.compile(build("several_layers")) as program:
            assert not program.has_keys
            for name in ("inputs", "outputs", "secret_keys", "evaluation_keys"):
                assert getattr(program, f"size_of_{name}") > 0
                assert program.statistics[f"size_of_{name}"] == getattr(program, f"size_of_{name}")
            assert program.complexity > 0
            assert program.statistics["complexity"] == program.complexity

    @pytest.mark.parametrize("name", COUNTED)
    def test_lookups_are_those_of_the_circuit(self, name: str) -> None:
        circuit = build(name)
        counts = count_lookups(circuit)
        with self.engine.compile(circuit) as program:
            assert program.programmable_bootstrap_count == counts.total + counts.rounded_bits

    def test_wider_lookups_cost_more(self) -> None:
        from cipherlearn.circuit import Builder

        complexities = []
        for bits in range(1, 7):
            builder = Builder()
            x = builder.input("x", (4,), 0, 2**bits - 1)
            table = x.lookup(np.arange(2**bits) % 2, 0)
            complexities.append(self.engine.compile(builder.finish([table])).complexity)
        assert complexities == sorted(set(complexities))

    def test_error_probabilities_are_those_asked_for(self) -> None:
        circuit = build("several_layers")
        with self.engine.compile(circuit) as program:
            assert program.p_error <= 2.0**-40
            assert program.global_p_error >= program.p_error
        with self.engine.compile(circuit, CompileOptions.of(p_error=1e-3)) as program:
            assert 1e-6 < program.p_error <= 1e-3
        with self.engine.compile(circuit, CompileOptions.of(global_p_error=1e-3)) as program:
            assert 1e-6 < program.p_error < program.global_p_error <= 1.001e-3

    def test_simulation_needs_no_keys_and_repeats_itself(self) -> None:
        circuit = build("rounded_lookups")
        [batch] = inputs_of(circuit, rows=10)
        allowed = allowed_results(circuit, batch)
        with self.engine.compile(circuit) as program:
            for row, sample in enumerate(batch):
                first = program.simulate(sample, random_state=row)
                again = program.simulate(sample, random_state=row)
                for value, same, (lowest, highest) in zip(first, again, allowed, strict=True):
                    assert np.array_equal(value, same)
                    assert (lowest[row] <= value).all()
                    assert (value <= highest[row]).all()

    def test_closing_twice_is_fine(self) -> None:
        with self.engine.compile(build("bits_of_inputs")) as program:
            program.close()
        program.close()

    def test_a_program_knows_where_it_comes_from(self, program: Program) -> None:
        assert program.engine is self.engine
        assert program.options == CompileOptions()
        assert program.circuit.output_names == ("output_0",)
