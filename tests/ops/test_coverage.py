"""Every element-wise operator of ONNX is supported; a newer onnx says which one is new."""

from __future__ import annotations

import onnx.defs

from cipherlearn import ops
from cipherlearn.ops import Kind

# Operators that are not element-wise, by the reason why. An operator is element-wise when each
# output element depends on the elements of the operands at the same place only (after
# broadcasting), and always in the same way.
NOT_ELEMENTWISE = {
    "moves elements, or makes tensors of another shape": """
        Identity Dropout Flatten Reshape Transpose Squeeze Unsqueeze Concat Split Slice Pad Tile
        Expand Gather GatherElements GatherND ScatterElements ScatterND TensorScatter Compress
        DepthToSpace SpaceToDepth ReverseSequence CenterCropPad Trilu Unique NonZero OneHot Size
        Shape Col2Im
    """,
    "makes a tensor out of shapes, ranges or nothing": """
        Constant ConstantOfShape EyeLike Range AffineGrid BlackmanWindow HammingWindow HannWindow
        MelWeightMatrix ImageDecoder
    """,
    "combines elements along axes": """
        ArgMax ArgMin CumProd CumSum Det Einsum Gemm MatMul MatMulInteger QLinearMatMul Hardmax
        LogSoftmax Softmax LpNormalization TopK ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp
        ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare DFT STFT
    """,
    "combines neighbours": """
        AveragePool Conv ConvInteger ConvTranspose DeformConv QLinearConv GlobalAveragePool
        GlobalLpPool GlobalMaxPool LpPool MaxPool MaxRoiPool MaxUnpool GridSample Resize RoiAlign
        LRN CausalConvWithState
    """,
    "normalizes with statistics, or with parameters that belong to an axis": """
        BatchNormalization GroupNormalization InstanceNormalization LayerNormalization
        MeanVarianceNormalization RMSNormalization
    """,
    "quantizes with parameters that belong to an axis, to blocks, or to the whole tensor": """
        QuantizeLinear DequantizeLinear DynamicQuantizeLinear
    """,
    "combines positions of a sequence": """
        Attention LinearAttention RotaryEmbedding GRU LSTM RNN
    """,
    "computes a loss": "NegativeLogLikelihoodLoss SoftmaxCrossEntropyLoss",
    "draws random numbers": """
        Bernoulli Multinomial RandomNormal RandomNormalLike RandomUniform RandomUniformLike
    """,
    "controls the flow": "If Loop Scan SequenceMap",
    "works on sequences, optional values or boxes": """
        ConcatFromSequence SequenceAt SequenceConstruct SequenceEmpty SequenceErase SequenceInsert
        SequenceLength SplitToSequence Optional OptionalGetElement OptionalHasElement
        NonMaxSuppression
    """,
    "works on text": """
        RegexFullMatch StringConcat StringNormalizer StringSplit TfIdfVectorizer
    """,
}
LISTED = {name for listed in NOT_ELEMENTWISE.values() for name in listed.split()}


def current_operators() -> set[str]:
    newest = {}
    for schema in onnx.defs.get_all_schemas():
        if schema.domain == "":
            newest[schema.name] = schema
    return {name for name, schema in newest.items() if not schema.deprecated}


def test_every_elementwise_operator_is_registered() -> None:
    missing = sorted(current_operators() - LISTED - set(ops.names()))
    assert not missing, (
        f"onnx {onnx.__version__} has operators that are neither registered nor listed as not"
        f" element-wise: {missing}"
    )


def test_operators_of_the_list_are_not_registered_as_elementwise() -> None:
    wrong = [name for name in LISTED & set(ops.names()) if ops.get(name).kind is Kind.ELEMENTWISE]
    assert not wrong


def test_the_list_names_each_operator_once_and_knows_them() -> None:
    words = [name for listed in NOT_ELEMENTWISE.values() for name in listed.split()]
    assert len(words) == len(set(words))
    if onnx.defs.onnx_opset_version() >= 28:
        assert not set(words) - current_operators()


def test_nothing_registered_is_unknown_to_a_current_onnx() -> None:
    if onnx.defs.onnx_opset_version() >= 28:
        assert not ops.unavailable()
    assert ops.unavailable() <= {"BitCast", "RMSNormalization", "Swish", "SwiGLU"}
