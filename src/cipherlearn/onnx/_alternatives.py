"""What to use in place of common operators that cannot be computed on encrypted values."""

from __future__ import annotations

from typing import Final

_RECURRENT: Final = (
    "unroll it for a fixed number of steps (a cell in a Python loop exports as Gemm, Sigmoid, Tanh"
    " and Mul), or use a 1-D convolution"
)
_CONTROL: Final = (
    "write the steps out for a fixed number of them; choose between values with Where, not with"
    " branches"
)
_TREES: Final = (
    "cipherlearn.sklearn.from_onnx imports a model that is one tree ensemble; trees inside a larger"
    " model can be converted with hummingbird-ml (strategy GEMM)"
)
_BRANCH: Final = (
    "its condition depends on an input of the model, which is encrypted; only a constant condition"
    " can be decided on. Compute both branches, and choose between their results with Where"
    " (torch.where)"
)
_DATA_DEPENDENT: Final = (
    "the shape of its result depends on encrypted values: return what it reads, and select after"
    " decryption"
)
_RANDOM: Final = "export the model in evaluation mode, or give the random numbers as an input"
_SEQUENCE: Final = "work on one tensor: Concat, Split and Gather replace lists of tensors"
_TEXT: Final = "text is prepared by the client: give numbers as the input of the model"
_SCATTER: Final = "add what is new with Pad or Concat, or choose it with Where and a constant mask"
_INTEGER: Final = "give the float model, or one with QuantizeLinear and DequantizeLinear pairs"
_TRANSFORM: Final = "its weights are constants: write it as MatMul with a constant matrix"
_LOSS: Final = "export the model without its loss"
_REGIONS: Final = "do it before encryption, on the client"

_GROUPS: Final[dict[str, tuple[str, ...]]] = {
    _RECURRENT: ("GRU", "LSTM", "RNN"),
    _BRANCH: ("If",),
    _CONTROL: ("Loop", "Scan", "SequenceMap"),
    _DATA_DEPENDENT: ("NonMaxSuppression", "NonZero", "Unique"),
    _RANDOM: (
        "Bernoulli",
        "Multinomial",
        "RandomNormal",
        "RandomNormalLike",
        "RandomUniform",
        "RandomUniformLike",
    ),
    _SEQUENCE: (
        "ConcatFromSequence",
        "SequenceAt",
        "SequenceConstruct",
        "SequenceEmpty",
        "SequenceErase",
        "SequenceInsert",
        "SequenceLength",
        "SplitToSequence",
    ),
    _TEXT: ("RegexFullMatch", "StringConcat", "StringNormalizer", "StringSplit", "TfIdfVectorizer"),
    _SCATTER: ("Scatter", "ScatterElements", "ScatterND", "TensorScatter"),
    _INTEGER: ("ConvInteger", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul"),
    _TRANSFORM: ("DFT", "STFT"),
    _LOSS: ("NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss"),
    _REGIONS: (
        "AffineGrid",
        "DeformConv",
        "GridSample",
        "ImageDecoder",
        "MaxRoiPool",
        "RoiAlign",
    ),
}

_ALTERNATIVES: Final[dict[str, str]] = {
    **{op: text for text, operators in _GROUPS.items() for op in operators},
    "Attention": "export attention written out, with MatMul and Softmax (in transformers:"
    " attn_implementation='eager')",
    "LRN": "replace it by batch normalization and train again",
    "MaxUnpool": "use Resize or ConvTranspose",
    "TopK": "torch.sort, torch.argsort and torch.topk are written with it: return all scores and"
    " sort after decryption; ArgMax at the end of a model is computed"
    " by the client, and ReduceMax gives the largest value",
    "Upsample": "convert the model to operator set 10 or newer, where it is Resize",
    "ai.onnx.ml.TreeEnsemble": _TREES,
    "ai.onnx.ml.TreeEnsembleClassifier": _TREES,
    "ai.onnx.ml.TreeEnsembleRegressor": _TREES,
}


def alternative(op: str) -> str | None:
    """What to use in place of an operator that is not supported; ``None`` if nothing is known.

    Parameters
    ----------
    op : str
        Qualified name of the operator.

    Returns
    -------
    str or None
    """
    return _ALTERNATIVES.get(op)
