"""Trees as a model that can be encrypted: the client's code, the circuit, the client's sum."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from cipherlearn.circuit import Circuit
from cipherlearn.engines import CompileOptions, Engine, Program
from cipherlearn.engines.base import DEFAULT_P_ERROR
from cipherlearn.engines.estimate import warn_of_cost
from cipherlearn.engines.execution import FheMode
from cipherlearn.errors import (
    CompilationError,
    InvalidParameterError,
    InvalidShapeError,
    NoParametersError,
    SelfCheckError,
)
from cipherlearn.quantization.circuit_model import CircuitModel, check_encryption_status
from cipherlearn.quantization.quantizers import (
    MinMaxQuantizationStats,
    QuantizationOptions,
    UniformQuantizationParameters,
    UniformQuantizer,
    quantizer_of_results,
)
from cipherlearn.sklearn.trees.cover import Cover, Covers, cover_ensemble
from cipherlearn.sklearn.trees.program import (
    LOOKED_UP,
    SCORES,
    TERMS,
    Planes,
    build_circuit,
    linear_constant,
)
from cipherlearn.sklearn.trees.quantized import QuantizedTrees

#: Rows that every circuit is tried on in the clear.
CHECKED_ROWS = 16

#: Rows whose bits are in memory at once, in the clear.
CHUNK_ROWS = 8192

#: Trees, spread over the ensemble, that tell which widths are worth covering all of it with; by how
#: much the least complexity of their look-ups may exceed that of the best width.
SAMPLED, WORTH_TRYING = 4, 2.0

#: The engine's complexity of one look-up by its width, where nothing else asks for precision
#: (Concrete 2.11, p_error 2^-40): no circuit is cheaper than the sum of these.
LEAST_COMPLEXITY = {
    2: 4.1e7,
    3: 6.7e7,
    4: 9.7e7,
    5: 2.2e8,
    6: 5.2e8,
    7: 1.2e9,
    8: 2.6e9,
    9: 6.1e9,
    10: 1.3e10,
}

_BIT = UniformQuantizer(
    QuantizationOptions(1),
    MinMaxQuantizationStats(1.0, 0.0),
    UniformQuantizationParameters(1.0, 0, 0),
)


class TreeModule(CircuitModel):
    """An ensemble between the bits that the client sends and the scores that it decrypts.

    Parameters
    ----------
    trees : QuantizedTrees
    planes : Planes or "used", optional
        Which bits the client encrypts. ``"used"`` for those that the circuit reads: fewer, and
        **they tell the client what the splits are**. Default: all.
    sums : bool, default=True
        Whether trees are added under encryption. Otherwise the client gets the result of every
        look-up and adds them: cheaper, and it tells the client more of the model.

    Attributes
    ----------
    cover : Cover
        The tables. Before `compile` their width is the likeliest; `compile` asks the engine for the
        cheapest. All covers give the same integers.
    planes : Planes
        Which bits the client encrypts for them.
    """

    def __init__(
        self,
        trees: QuantizedTrees,
        *,
        planes: Planes | Literal["used"] | None = None,
        sums: bool = True,
    ) -> None:
        super().__init__((), ())
        self._sent = Planes.public(trees.codes) if planes is None else planes
        self.trees = trees
        self.sums = sums
        self.use_width(self._promising_widths()[0])

    def use_width(self, width: int) -> None:
        """Take tables of at most so many bits; the module is not compiled then."""
        self._use(cover_ensemble(self.trees.ensemble, self.trees.codes, width))

    def _use(self, cover: Cover) -> None:
        """Take over a cover, and the circuit of it."""
        self._discard_circuit()
        self.cover = cover
        sent = self._sent
        self.planes = sent if isinstance(sent, Planes) else Planes.used(cover, self.trees.codes)
        self._circuit = circuit = self._build_circuit()
        self.ordered_module_input_names = tuple(known.label for known in circuit.inputs)
        self.ordered_module_output_names = circuit.output_names
        self.input_shapes = tuple(known.shape for known in circuit.inputs)
        self.input_quantizers = [_BIT for _ in circuit.inputs]
        results = zip(circuit.output_names, circuit.output_nodes, strict=True)
        self.output_quantizers = [self._result_quantizer(n, node.interval) for n, node in results]
        self._encrypted = ()
        constant = cover.base + linear_constant(cover, self.trees.codes)
        self._offset = self.trees.base + self.trees.scale * constant
        self._check_cover()

    def _result_quantizer(self, name: str, interval: Any) -> UniformQuantizer:
        scale = self.trees.scale
        scale = scale if name == SCORES else np.repeat(scale, self._terms_of_outputs())
        return quantizer_of_results(interval, scale)

    def _build_circuit(self) -> Circuit:
        return build_circuit(self.cover, self.trees.codes, self.planes, sums=self.sums)

    def _compiled(self, engine: Engine, options: CompileOptions) -> Program:
        try:
            return self._cheapest(engine, options)
        except CompilationError as error:
            raise self._without_variation(error) from error

    def _cheapest(self, engine: Engine, options: CompileOptions) -> Program:
        """The program of the tables whose circuit is the cheapest, by the engine's own figure."""
        widths = self._promising_widths()
        found = Covers(self.trees.ensemble, self.trees.codes, max(widths))
        covers = {width: found.of_width(width) for width in widths}
        bounds = {width: _least_complexity(cover, width) for width, cover in covers.items()}
        cheapest = sorted(covers, key=bounds.__getitem__)
        _warn_of_cost(covers[cheapest[0]], bounds[cheapest[0]])
        # More errors are cheaper than what the bounds were measured at.
        are_bounds = options.p_error is not None and options.p_error <= DEFAULT_P_ERROR
        tried: list[tuple[Program, Cover]] = []
        refusals: list[NoParametersError] = []
        for width in cheapest:
            least = min((program.complexity for program, _ in tried), default=np.inf)
            if tried and (not covers[width].blocks or (are_bounds and bounds[width] >= least)):
                break
            self._use(covers[width])
            try:
                tried.append((engine.compile(self.circuit, options), covers[width]))
            except NoParametersError as error:  # of another width there may be some
                refusals.append(error)
        if not tried:
            raise refusals[0]
        best, chosen = min(tried, key=lambda each: each[0].complexity)
        if self.cover is not chosen:
            self._use(chosen)
        return best

    def _without_variation(self, error: CompilationError) -> CompilationError:
        """An engine's error, in words about trees if all rows get the same from them."""
        if any(node.interval.min < node.interval.max for node in self.circuit.output_nodes):
            return error
        return CompilationError(
            "the trees predict the same for all rows (as after training on one class, one row, "
            "equal targets, or features that do not vary): there is nothing to encrypt. Use "
            "fhe='disable', or train on other data"
        )

    def _check_cover(self) -> None:
        """Raise `SelfCheckError` unless the circuit gives what the trees give, on some rows."""
        generator = np.random.default_rng(0)
        points = [generator.choice(code.representatives, CHECKED_ROWS) for code in self.trees.codes]
        rows = np.stack(points, axis=1)
        if not np.array_equal(self.forward(rows), self.trees.scores(rows)):
            raise SelfCheckError(
                "the circuit does not give what the trees give: report it with the parameters of "
                "the model"
            )

    def _promising_widths(self) -> list[int]:
        """Widths of tables that may be the cheapest, the likeliest first: what a few trees need."""
        ensemble = self.trees.ensemble
        few = replace(ensemble, trees=ensemble.trees[:: max(1, len(ensemble.trees) // SAMPLED)])
        covers = Covers(few, self.trees.codes, max(LEAST_COMPLEXITY))
        bounds: dict[int, float] = {}
        for width, of_one in LEAST_COMPLEXITY.items():
            if bounds and of_one > WORTH_TRYING * min(bounds.values()):
                break
            bounds[width] = _least_complexity(covers.of_width(width), width)
        most = WORTH_TRYING * min(bounds.values())
        return sorted((w for w, b in bounds.items() if b <= most), key=bounds.__getitem__)

    def quantize_input(self, *x: Any, dtype: Any = np.int64) -> Any:
        """The bits of rows, as the client encrypts them.

        Parameters
        ----------
        *x : numpy.ndarray of float, shape (rows, features)
            One array; NaN where a value is missing.
        dtype : numpy dtype, default=int64

        Returns
        -------
        numpy.ndarray of shape (rows, bits), or a tuple of two of them
            One an input of the circuit: two if some functions are looked up, and others are sums.
        """
        if len(x) != 1:
            raise InvalidShapeError(f"{len(x)} arrays were given; trees take one: rows of features")
        states = zip(self.trees.codes, self.trees.states(x[0]), strict=True)
        bits = np.concatenate(
            [code.bits(of_rows).astype(dtype) for code, of_rows in states], axis=1
        )
        planes = self.planes
        inputs = tuple(
            _plane(bits, planes.looked_up if name == LOOKED_UP else planes.added)
            for name in self.ordered_module_input_names
        )
        return inputs if len(inputs) > 1 else inputs[0]

    def _rows(self, inputs: Sequence[Any]) -> tuple[np.ndarray, ...]:
        # Bits take a byte each: there are many of them.
        rows = self.quantize_input(*inputs, dtype=np.int8)
        return rows if isinstance(rows, tuple) else (rows,)

    def forward(self, *x: np.ndarray, fhe: str | FheMode = "disable") -> Any:
        """Scores of rows: see `CircuitModel.forward`."""
        mode = FheMode.of(fhe)
        rows = len(x[0]) if len(x) == 1 else 0
        if mode is not FheMode.DISABLE or rows <= CHUNK_ROWS:
            return super().forward(*x, fhe=mode)
        starts = range(0, rows, CHUNK_ROWS)
        return np.concatenate(
            [super(TreeModule, self).forward(x[0][a : a + CHUNK_ROWS]) for a in starts]
        )

    def _set_encryption_status(self, given: Sequence[str] | None) -> None:
        """Raise `InvalidParameterError` for bits that are to stay clear: it would gain nothing."""
        if given is not None and not all(check_encryption_status(given)):
            raise InvalidParameterError(
                "inputs_encryption_status: the features of a row are encrypted together; all "
                "inputs of trees must be 'encrypted'"
            )

    def _count_clipped(self, x: Sequence[Any]) -> None:
        """Nothing is clipped: a value beyond all cuts is in the outermost interval."""

    def post_processing(self, *values: np.ndarray) -> np.ndarray:
        """The scores of the ensemble, of shape (rows, outputs), from decrypted real results."""
        results = dict(zip(self.ordered_module_output_names, values, strict=True))
        total = np.asarray(self._offset) + results.get(SCORES, 0.0)
        if TERMS in results:
            first = np.cumsum([0, *self._terms_of_outputs()])
            parts = [results[TERMS][:, a:b].sum(axis=1) for a, b in itertools.pairwise(first)]
            total = total + np.stack(parts, axis=1)
        return np.asarray(total)

    def _terms_of_outputs(self) -> list[int]:
        """How many look-ups each output is the sum of."""
        return [
            sum(bool(block.table[:, output].any()) for block in self.cover.blocks)
            for output in range(len(self.trees.base))
        ]


def _plane(bits: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Some of the bits; one that says nothing in place of none."""
    if not len(places):
        return np.zeros((len(bits), 1), dtype=bits.dtype)
    return bits if len(places) == bits.shape[1] else bits[:, places]


def _least_complexity(cover: Cover, width: int) -> float:
    """No circuit of a cover with tables of that width is cheaper."""
    return cover.n_lookups * LEAST_COMPLEXITY[width]


def _warn_of_cost(cover: Cover, least: float) -> None:
    warn_of_cost(
        "the trees",
        cover.n_lookups,
        least,
        "Shallower trees (max_depth), larger leaves (min_samples_leaf), fewer trees (n_estimators) "
        "and fewer bits in the leaves (n_bits: 'op_leaves') need fewer",
    )
