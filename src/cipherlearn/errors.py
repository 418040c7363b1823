"""Every error and warning that cipherlearn raises on purpose.

::

    CipherlearnError
    ├── InvalidParameterError (ValueError)     a value outside what is accepted
    │   ├── InvalidShapeError                  a wrong number of dimensions, elements or arrays
    │   └── UnknownKeyError (KeyError)         a dictionary with keys nobody reads
    ├── InvalidTypeError (TypeError)           a value of the wrong type or dtype
    ├── ModelError (ValueError)                the model itself cannot be used
    │   ├── ModelFormatError                   not a model file, truncated, external data missing
    │   ├── UnsupportedOperatorError           operators that do not exist here (all of them listed)
    │   ├── UnsupportedAttributeError          an operator used in a way that is not supported
    │   ├── EncryptedOperandError              an encrypted value where only a clear one works
    │   └── UnquantizedTensorError             a QAT graph with a tensor nobody quantized
    ├── CircuitError (ValueError)              an integer program that cannot exist
    │   ├── AccumulatorOverflowError           integers beyond 62 bits
    │   └── LookupWidthError                   a table look-up on more than 16 bits
    ├── EngineError (RuntimeError)             the encryption engine cannot do it
    │   ├── EngineUnavailableError             missing, too new companions, missing CPU instructions
    │   ├── CompilationError                   the engine refused the circuit
    │   │   └── NoParametersError              no cryptographic parameters reach the precision
    │   └── SelfCheckError                     an encrypted result differs from the exact one
    ├── FormatError (ValueError)               a saved file that is damaged, too new or not ours
    ├── NotCompiledError (AttributeError)      execution asked for before compiling
    ├── NotCalibratedError (AttributeError)    quantization parameters asked for before calibration
    ├── NotFittedError (AttributeError)        prediction asked for before training
    └── MissingDependencyError (ImportError)   an optional package that is not installed

    CipherlearnWarning (UserWarning)
    ├── OverflowWarning                        values left the range kept for an accumulator
    ├── CalibrationWarning                     calibration data that says too little
    ├── AgreementWarning                       an imported model predicts otherwise than it did
    └── CostWarning                            a prediction that takes very long

Each class also derives from the built-in exception that a caller would expect (in parentheses), so
``except ValueError`` keeps working. Messages say what was given, what is accepted, what to change.
"""

from __future__ import annotations

import inspect
import warnings


class CipherlearnError(Exception):
    """Base of all errors raised on purpose by cipherlearn."""


class InvalidParameterError(CipherlearnError, ValueError):
    """A parameter has a value outside what is accepted."""


class InvalidShapeError(InvalidParameterError):
    """An array, or a list of arrays, has the wrong shape or length."""


class UnknownKeyError(InvalidParameterError, KeyError):
    """A dictionary parameter has keys that nothing reads."""

    def __str__(self) -> str:
        # KeyError shows the repr of its argument, which hides line breaks and quotes.
        return str(self.args[0]) if self.args else ""


class InvalidTypeError(CipherlearnError, TypeError):
    """A parameter has the wrong type, or an array the wrong dtype."""


class ModelError(CipherlearnError, ValueError):
    """The given model cannot be used."""


class ModelFormatError(ModelError):
    """The given file or bytes are not a complete model."""


class UnsupportedOperatorError(ModelError):
    """The model uses operators that do not exist here."""


class UnsupportedAttributeError(ModelError):
    """The model uses an operator with attributes or operands that are not supported."""


class EncryptedOperandError(ModelError):
    """An encrypted value stands where only a clear one works."""


class UnquantizedTensorError(ModelError):
    """A quantization-aware graph holds a tensor that nothing quantizes."""


class CircuitError(CipherlearnError, ValueError):
    """An integer program that cannot exist (shapes, types, bounds)."""


class AccumulatorOverflowError(CircuitError):
    """Integers of a circuit may leave the 62 bits that evaluation is exact on."""


class LookupWidthError(CircuitError):
    """A table look-up reads more than the 16 bits that the engine can look up."""


class EngineError(CipherlearnError, RuntimeError):
    """The encryption engine could not do what was asked."""


class EngineUnavailableError(EngineError):
    """The engine cannot run here: not installed, wrong companions, missing CPU instructions."""


class CompilationError(EngineError):
    """The engine refused the circuit."""


class NoParametersError(CompilationError):
    """No cryptographic parameters give the precision that the circuit asks for."""


class SelfCheckError(EngineError):
    """An encrypted result is not one that the exact evaluator allows."""


class FormatError(CipherlearnError, ValueError):
    """A saved file is damaged, was written by a newer version, or is not ours."""


class NotCompiledError(CipherlearnError, AttributeError):
    """Encrypted or simulated execution was asked for before compiling."""


class NotCalibratedError(CipherlearnError, AttributeError):
    """Quantization parameters were asked for before calibration."""


class NotFittedError(CipherlearnError, AttributeError):
    """A prediction was asked for before training."""


class MissingDependencyError(CipherlearnError, ImportError):
    """An optional package is needed and not installed."""


class CipherlearnWarning(UserWarning):
    """Base of all warnings given by cipherlearn."""


class OverflowWarning(CipherlearnWarning):
    """Values left the range that is kept for an accumulator: encrypted results may be wrong."""


class CalibrationWarning(CipherlearnWarning):
    """The calibration data says too little about the values that the model will see."""


class AgreementWarning(CipherlearnWarning):
    """An imported model, with the bits that it was given, predicts otherwise than it did."""


class CostWarning(CipherlearnWarning):
    """An encrypted prediction takes far longer than most users would wait."""


def warn(message: str, category: type[CipherlearnWarning]) -> None:
    """Give a warning that points at the caller's line, however deep in the package it arises."""
    frame = inspect.currentframe()
    depth = 0
    while frame is not None and frame.f_globals.get("__name__", "").startswith("cipherlearn"):
        frame, depth = frame.f_back, depth + 1
    warnings.warn(message, category, stacklevel=depth + 1)
