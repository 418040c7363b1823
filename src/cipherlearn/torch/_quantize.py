"""How a network is quantized, from what a user says about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from cipherlearn.engines import CompileOptions
from cipherlearn.errors import InvalidParameterError
from cipherlearn.quantization.bypass import BYPASS
from cipherlearn.quantization.lookup_aware import BOUNDS, PostTrainingLookupQuantization
from cipherlearn.quantization.n_bits import (
    Rounding,
    get_n_bits_dict,
    process_rounding_threshold_bits,
)
from cipherlearn.quantization.post_training import ONNXConverter
from cipherlearn.quantization.qat import PostTrainingQATImporter, asked_bits, widths_of
from cipherlearn.quantization.quantized_module import QuantizedModule
from cipherlearn.quantization.search import SearchResult, SearchSpace, check_goal, find_bits
from cipherlearn.torch.numpy_module import NumpyModule

AUTO = "auto"


@dataclass(frozen=True)
class Request:
    """The options of `cipherlearn.torch.compile_torch_model` that say how to quantize.

    Raises
    ------
    InvalidParameterError
        If one is out of what is accepted, or would change nothing.
    """

    n_bits: int | str | Mapping[str, int]
    rounding_threshold_bits: Any
    import_qat: bool
    labels: Any = None
    max_drop: float = 0.01
    max_seconds: float | None = None
    bounds: str = "observed"
    distill: bool = False
    bypass: str = "hidden"

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Request:
        """The request in the parameters of a compile function, by name."""
        return cls(**{f.name: given[f.name] for f in fields(cls) if f.name in given})

    def __post_init__(self) -> None:
        rounding = self.rounding
        if isinstance(self.n_bits, str) and self.n_bits != AUTO:
            raise InvalidParameterError(
                f"n_bits is a number of bits, a dictionary or 'auto', not {self.n_bits!r}"
            )
        if self.import_qat:
            widths_of(self._asked)
        elif self._bits is not None:
            get_n_bits_dict(self._bits)
        if self.bounds not in BOUNDS:
            raise InvalidParameterError(
                f"bounds must be one of {list(BOUNDS)}, not {self.bounds!r}"
            )
        if self.bypass not in BYPASS:
            raise InvalidParameterError(
                f"bypass must be one of {list(BYPASS)}, not {self.bypass!r}"
            )
        anew = {
            "bypass='outputs'": self.bypass == "outputs",
            "distill=True": self.distill,
        }
        named = [name for name, is_given in anew.items() if is_given]
        if self.import_qat and named:
            raise InvalidParameterError(
                f"{named[0]} chooses weights anew, and import_qat=True takes them as they were "
                "trained: give one of them"
            )
        if self.bypass == "outputs" and not self.import_qat and not self._is_rounded:
            raise InvalidParameterError(
                "bypass='outputs' would change nothing: what goes around a look-up makes up for "
                "rounding. Give rounding_threshold_bits, or leave bypass out"
            )
        check_goal(self.max_drop, self.max_seconds)
        chosen = {"labels": self.labels, "max_seconds": self.max_seconds}
        given = [name for name, value in chosen.items() if value is not None]
        if self.max_drop != type(self).max_drop:
            given.append("max_drop")
        if given and not self._is_search(rounding):
            raise InvalidParameterError(
                f"{' and '.join(given)} would change nothing: they tell good bits from others "
                "where bits are chosen (rounding_threshold_bits='auto', or n_bits='auto' without "
                "import_qat)"
            )

    @property
    def rounding(self) -> Rounding | None:
        """Rounding as it is asked for."""
        return process_rounding_threshold_bits(self.rounding_threshold_bits)

    @property
    def _exact(self) -> bool | None:
        """Whether rounding is exact; None where no method is asked for."""
        given = self.rounding_threshold_bits
        is_given = isinstance(given, Rounding) or (isinstance(given, Mapping) and "method" in given)
        return self.rounding.exact if is_given and self.rounding is not None else None

    @property
    def _bits(self) -> int | Mapping[str, int] | None:
        """Bits as they are asked for; None where they are to be chosen."""
        if self.import_qat:
            return widths_of(self._asked)
        return self._asked

    @property
    def _asked(self) -> int | Mapping[str, int] | None:
        return None if isinstance(self.n_bits, str) else self.n_bits

    @property
    def _is_rounded(self) -> bool:
        """Whether accumulators are rounded, or may be."""
        return self.rounding is not None or self._bits is None

    def _is_search(self, rounding: Rounding | None) -> bool:
        return self._bits is None or (rounding is not None and rounding.n_bits == AUTO)

    def quantize(
        self, model: NumpyModule, data: tuple[Any, ...], options: CompileOptions, keep_onnx: bool
    ) -> QuantizedModule:
        """Quantize a float model.

        Parameters
        ----------
        model : NumpyModule
        data : tuple of numpy.ndarray
            Calibration data, one array an input.
        options : CompileOptions
            What candidates are priced for.
        keep_onnx : bool
        """
        if self.distill:
            # Imported here: it loads torch, which models from files do not need.
            from cipherlearn.torch.distillation import check_split, distill

            check_split(len(data[0]))
            converter, result = self._converter(model, data, options)
            module = distill(converter, *data, keep_onnx=keep_onnx, options=options)
        else:
            converter, result = self._converter(model, data, options)
            module = converter.quantize_module(*data, keep_onnx=keep_onnx)
        module.search = result
        return module

    def _converter(
        self, model: NumpyModule, data: tuple[Any, ...], options: CompileOptions
    ) -> tuple[ONNXConverter, SearchResult | None]:
        """What quantizes, and how its bits were found if they were looked for."""
        rounding, bits = self.rounding, self._bits
        if bits is None or self._is_search(rounding):
            kept = None if rounding is None or rounding.n_bits == AUTO else rounding.n_bits
            space = SearchSpace.of(bits, int(kept) if kept else None, self._exact)
            converter, result = find_bits(
                model,
                data,
                self.labels,
                self.max_drop,
                self.max_seconds,
                space,
                self.bounds,
                self.import_qat,
                options,
                bypass=self.bypass,
            )
            if isinstance(converter, PostTrainingQATImporter):
                converter.asked = asked_bits(self._asked)
            return converter, result
        if self.import_qat:
            return PostTrainingQATImporter(self._asked, model, rounding, self.bounds), None
        return PostTrainingLookupQuantization(bits, model, rounding, self.bounds, self.bypass), None
