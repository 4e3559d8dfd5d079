"""What a phone's accelerators take, as rules over a file; asked for by name, never by default.

Sources: the GPU delegate's operators are those of TensorFlow Lite's guide to it
(tensorflow.org/lite/performance/gpu), which names fewer than the code takes; QNN's are those of
ONNX Runtime's page on its QNN execution provider.
"""

from __future__ import annotations

from collections.abc import Iterator

from onnx import TensorProto

from edgekd.config.device import Device
from edgekd.modelfile.onnx_graph import OnnxGraph
from edgekd.modelfile.tflite_graph import TfliteGraph
from edgekd.rules.onnx_queries import activation_conversions, unlisted
from edgekd.rules.rule import Breach, Rule

_GPU = "TensorFlow Lite guide, GPU delegate, supported operations"
_QNN = "ONNX Runtime documentation, QNN execution provider"

_ON_GPU = """
    ADD AVERAGE_POOL_2D CONCATENATION CONV_2D DEPTHWISE_CONV_2D EXP FULLY_CONNECTED LOGICAL_AND
    LOGISTIC LSTM MAX_POOL_2D MAXIMUM MINIMUM MUL PAD PRELU RELU RELU6 RESHAPE RESIZE_BILINEAR
    SOFTMAX STRIDED_SLICE SUB TRANSPOSE_CONV QUANTIZE DEQUANTIZE
    """
_IN_QNN = """
    Abs Add And ArgMax ArgMin Asin Atan AveragePool BatchNormalization Cast CastLike Ceil Clip
    Concat Conv ConvTranspose Cos CumSum DepthToSpace DequantizeLinear Div Einsum Elu Equal Exp
    Expand Flatten Floor GRU Gather GatherElements GatherND Gelu Gemm GlobalAveragePool
    GlobalMaxPool Greater GreaterOrEqual GridSample GroupNormalization HardSigmoid HardSwish
    Identity If InstanceNormalization Inverse IsInf IsNaN LRN LSTM LayerNormalization LeakyRelu
    Less LessOrEqual Log LogSoftmax LpNormalization LpPool MatMul Max MaxPool Mean Min Mod Mul Neg
    NonMaxSuppression NonZero Not OneHot Or PRelu Pad Pow QLinearMatMul QuantizeLinear
    RMSNormalization RandomNormalLike RandomUniformLike Range Reciprocal ReduceL2 ReduceLogSumExp
    ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum Relu Reshape Resize RoiAlign
    RotaryEmbedding Round STFT ScatterElements ScatterND Selu Shape Sigmoid Sign Sin Slice Softmax
    Softplus SpaceToDepth Split Sqrt Squeeze Sub Sum Tan Tanh ThresholdedRelu Tile TopK Transpose
    Unsqueeze Upsample Where Xor Constant
    """
_GPU_OPERATORS, _QNN_OPERATORS = frozenset(_ON_GPU.split()), frozenset(_IN_QNN.split())


def on_gpu(graph: TfliteGraph, device: Device) -> Iterator[Breach]:
    """Yields operators that are not on the delegate's published list: each may split the graph."""
    for operator in graph.operators:
        if operator.native not in _GPU_OPERATORS:
            yield Breach(
                where=operator.outputs[0].name, message=f"{operator.native} may stay on the CPU"
            )


def in_qnn(graph: OnnxGraph, device: Device) -> Iterator[Breach]:
    """Yields operators that the execution provider leaves to the CPU."""
    for node in unlisted(graph, _QNN_OPERATORS):
        yield Breach(where=node.name, message=f"{node.op_type} stays on the CPU")


def unsigned(graph: OnnxGraph, device: Device) -> Iterator[Breach]:
    """Yields int8 activations; the NPU's operators typically take unsigned ones."""
    for node in activation_conversions(graph):
        made = node.output[0] if node.op_type == "QuantizeLinear" else ""
        if graph.types.get(made) == TensorProto.INT8:
            yield Breach(where=node.name, message="activation is int8; take int8-host.onnx, uint8")


GPU_DELEGATE_RULES: tuple[Rule[TfliteGraph], ...] = (
    Rule(id="gpu/operators", source=_GPU, check=on_gpu, level="advice"),
)
QNN_RULES: tuple[Rule[OnnxGraph], ...] = (
    Rule(id="qnn/operators", source=_QNN, check=in_qnn, level="advice"),
    Rule(id="qnn/unsigned", source=_QNN, check=unsigned, level="advice"),
)
