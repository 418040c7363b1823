"""Layers with constant weights as plain matrix products, for who chooses the weights.

``result = inputs @ matrix.T`` holds for each group of channels on its own.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np

Attributes = Mapping[str, Any]


class WeightLayout(ABC):
    """How an operator multiplies its first operand by its second one, which is constant."""

    #: Axis of the first operand whose entries have weights of their own: they may have scales of
    #: their own as well.
    operand_axis: int

    @abstractmethod
    def inputs(
        self, operand: np.ndarray, shape: tuple[int, ...], attributes: Attributes
    ) -> np.ndarray:
        """Input rows of the product.

        Parameters
        ----------
        operand : numpy.ndarray
            Real or integer, 0 standing for 0; batch axis first.
        shape : tuple of int
            Of the weights.
        attributes : mapping

        Returns
        -------
        numpy.ndarray of shape (groups, rows, inputs)
        """

    @abstractmethod
    def targets(self, result: np.ndarray, groups: int) -> np.ndarray:
        """The result as an array of shape (groups, rows, channels)."""

    @abstractmethod
    def matrix(self, weights: np.ndarray, attributes: Attributes) -> np.ndarray:
        """The weights as an array of shape (groups, channels, inputs)."""

    @abstractmethod
    def weights(
        self, matrix: np.ndarray, shape: tuple[int, ...], attributes: Attributes
    ) -> np.ndarray:
        """The inverse of `matrix`."""

    @abstractmethod
    def along_inputs(
        self, entries: np.ndarray, shape: tuple[int, ...], attributes: Attributes
    ) -> np.ndarray:
        """A value for each entry of the operand's axis, as (groups, 1, inputs).

        Parameters
        ----------
        entries : numpy.ndarray of shape (extent of `operand_axis`,)
        shape : tuple of int
            Of the weights.
        attributes : mapping
        """

    @abstractmethod
    def along_weights(
        self, channels: np.ndarray, shape: tuple[int, ...], attributes: Attributes
    ) -> np.ndarray:
        """A value for each channel of the result, broadcasting against the weights."""

    @abstractmethod
    def along_result(self, channels: np.ndarray, ndim: int) -> np.ndarray:
        """A value for each channel of the result, broadcasting against the result."""

    def accepts(self, weights: np.ndarray, attributes: Attributes) -> bool:
        """Whether these weights and attributes have this layout."""
        del weights, attributes
        return True
