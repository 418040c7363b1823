"""Finding the bits of every layer: the cheapest circuit that is accurate enough."""

from cipherlearn.quantization.search._search import check_goal, find_bits, search_bits
from cipherlearn.quantization.search.result import Point, SearchResult
from cipherlearn.quantization.search.space import INPUT_BITS, Candidate, SearchSpace

__all__ = [
    "INPUT_BITS",
    "Candidate",
    "Point",
    "SearchResult",
    "SearchSpace",
    "check_goal",
    "find_bits",
    "search_bits",
]
