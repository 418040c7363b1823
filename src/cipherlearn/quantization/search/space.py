"""What a search for bits may choose."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from cipherlearn.quantization.n_bits import (
    ROUNDING_RANGE,
    LayerBits,
    get_n_bits_dict,
)

#: Bits of all layers alike, from cheap to dear: kept by rounding, weights, activations.
LADDER = (
    (3, 3, 3),
    (3, 4, 4),
    (4, 3, 3),
    (4, 4, 4),
    (5, 4, 4),
    (5, 5, 5),
    (6, 5, 5),
    (6, 6, 6),
    (7, 6, 7),
    (8, 6, 8),
)

#: What is hardly ever accurate enough, for those who need it fast.
FASTEST = ((2, 2, 2), (2, 3, 3))

#: Fewest bits of the model's inputs: they meet no look-up before the first rounding, and are free.
INPUT_BITS = 6

#: Fewest and most bits that single layers are tried with.
LIMITS = {"kept": ROUNDING_RANGE, "weights": (2, 8), "inputs": (2, 8)}


@dataclass(frozen=True)
class Candidate:
    """Bits of all layers.

    Parameters
    ----------
    common : LayerBits
    single : tuple of (str, LayerBits)
        Layers that differ, by the name of their node.
    """

    common: LayerBits
    single: tuple[tuple[str, LayerBits], ...] = ()

    def of(self, layer: str) -> LayerBits:
        """Bits of one layer."""
        return dict(self.single).get(layer, self.common)

    def with_layer(self, layer: str, bits: LayerBits) -> Candidate:
        """The same, but for one layer."""
        single = {**dict(self.single), layer: bits}
        return Candidate(self.common, tuple(sorted(single.items())))

    def __str__(self) -> str:
        rest = "".join(f"; {name}: {bits}" for name, bits in self.single)
        return f"{self.common}{rest}"


@dataclass(frozen=True)
class Move:
    """A change of a candidate.

    Parameters
    ----------
    layer : str or None
        None for all layers.
    name : {"kept", "weights", "inputs", "exact"}
    step : int, default=0
        Bits more; ``exact`` changes to the other way to round.
    """

    layer: str | None
    name: str
    step: int = 0

    def of(self, candidate: Candidate) -> Candidate | None:
        """The changed candidate; None if it has more or fewer bits than are tried."""
        if self.layer is not None:
            changed = self._changed(candidate.of(self.layer))
            return None if changed is None else candidate.with_layer(self.layer, changed)
        common = self._changed(candidate.common)
        single = [(name, self._changed(bits)) for name, bits in candidate.single]
        if common is None:
            return None
        return Candidate(common, tuple((name, bits) for name, bits in single if bits is not None))

    def _changed(self, bits: LayerBits) -> LayerBits | None:
        if self.name == "exact":
            return replace(bits, exact=not bits.exact)
        lowest, highest = LIMITS[self.name]
        changed = getattr(bits, self.name) + self.step
        return replace(bits, **{self.name: changed}) if lowest <= changed <= highest else None


@dataclass(frozen=True)
class SearchSpace:
    """What a search may choose; what is given here is not chosen.

    Parameters
    ----------
    weights, inputs : int, optional
        Bits of all weights, and of all operands.
    kept : int, optional
        Bits that every rounding keeps.
    exact : bool, optional
        Whether accumulators are rounded exactly (dearer by the bits that are removed), or
        approximately. Default: chosen layer by layer.
    model_inputs : int, optional
        Bits of the model's inputs. Default: 6, or as many as the operands have if these are more.
    """

    weights: int | None = None
    inputs: int | None = None
    kept: int | None = None
    exact: bool | None = None
    model_inputs: int | None = None

    @classmethod
    def of(
        cls,
        n_bits: int | Mapping[str, int] | None = None,
        kept: int | None = None,
        exact: bool | None = None,
    ) -> SearchSpace:
        """The space that is left by what a user gives.

        Parameters
        ----------
        n_bits : int or dict, optional
            See `get_n_bits_dict`. Default: all bits are chosen.
        kept, exact
            As for the class.
        """
        if n_bits is None:
            return cls(kept=kept, exact=exact)
        bits = get_n_bits_dict(n_bits)
        return cls(bits["op_weights"], bits["op_inputs"], kept, exact, bits["model_inputs"])

    def ladder(self, rungs: Sequence[tuple[int, int, int]] = LADDER) -> tuple[Candidate, ...]:
        """Candidates with all layers alike, from cheap to dear.

        Parameters
        ----------
        rungs : sequence of (int, int, int)
            Bits kept by rounding, of weights, and of activations.
        """
        exact = bool(self.exact)
        bits = (
            LayerBits(self.weights or weights, self.inputs or inputs, self.kept or kept, exact)
            for kept, weights, inputs in rungs
        )
        return tuple(Candidate(each) for each in dict.fromkeys(bits))

    def moves(
        self,
        layers: Mapping[str, tuple[bool, bool]],
        step: int,
        operands: Collection[str] | None = None,
    ) -> Iterator[Move]:
        """Changes that lead to candidates nearby.

        Parameters
        ----------
        layers : mapping of str to (bool, bool)
            Whether a layer comes after a look-up, and before one.
        step : int
            Bits that one layer gets more.
        operands : collection of str, optional
            The layers whose operand bits change anything. Default: all.
        """
        for layer, (follows, feeds) in layers.items():
            # Weights and inputs that meet fresh encryptions cost nothing.
            if feeds and self.kept is None:
                yield Move(layer, "kept", step)
            if follows and self.weights is None:
                yield Move(layer, "weights", step)
            if follows and self.inputs is None and (operands is None or layer in operands):
                yield Move(layer, "inputs", step)
            if feeds and self.exact is None:
                yield Move(layer, "exact")
        if self.exact is None:
            yield Move(None, "exact")
