"""Q/DQ graphs as every runtime takes them: what NNCF writes, changed where one of them would compute it otherwise."""

from __future__ import annotations

import numpy as np
import onnx

from edpct.errors import QuantisationError

SMOOTHING = "/nncf_smooth_quant"  # how NNCF ends the names of its multiplications
PRODUCTS = ("Conv", "Gemm", "MatMul")
# Operators whose output has no value outside the range of their inputs.
WITHIN_RANGE = ("Concat", "MaxPool", "Reshape", "Resize", "Slice", "Squeeze", "Transpose", "Unsqueeze")


def make_signed(graph: onnx.ModelProto) -> None:
    """Turn uint8 activations into int8 ones, in place.

    NNCF quantises what a ReLU hands on to uint8. TensorRT knows int8 only (uint8 zero points are for DLA; elsewhere its
    parser reads them as int8 at the same scale, and all above half of the range is clipped), so the scale is stretched
    from 255 to 127 steps.

    Raises:
        QuantisationError: a zero point that is not 0.
    """
    tensors = {tensor.name: tensor for tensor in graph.graph.initializer}
    quantisers = [node for node in graph.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    unsigned = [n for n in quantisers if tensors[n.input[2]].data_type == onnx.TensorProto.UINT8]
    for name in sorted({node.input[2] for node in unsigned}):
        zero = onnx.numpy_helper.to_array(tensors[name])
        if zero.any():
            raise QuantisationError(f"The zero point '{name}' is not 0, which TensorRT does not take.")
        tensors[name].CopyFrom(onnx.numpy_helper.from_array(zero.astype(np.int8), name))
    for name in sorted({node.input[1] for node in unsigned}):
        scale = onnx.numpy_helper.to_array(tensors[name]) * np.float32(255 / 127)
        tensors[name].CopyFrom(onnx.numpy_helper.from_array(scale.astype(np.float32), name))
    for value in graph.graph.value_info:  # codes, also where they pass a Reshape or Transpose before they are read
        if value.type.tensor_type.elem_type == onnx.TensorProto.UINT8:
            value.type.tensor_type.elem_type = onnx.TensorProto.INT8


def unsmooth(graph: onnx.ModelProto) -> None:
    """Take back NNCF's smoothing where the product behind it stays in floating point, in place.

    SmoothQuant (Xiao et al., arXiv 2211.10438) scales a product's input down and its weights up, for the quantisers
    between them. Without quantisers it is work for nothing, and OpenVINO 2026.4 computes such graphs wrongly.
    """
    tensors = {tensor.name: tensor for tensor in graph.graph.initializer}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    for node in [node for node in graph.graph.node if node.name.endswith(SMOOTHING)]:
        products = readers.get(node.output[0], [])
        scale = onnx.numpy_helper.to_array(tensors[node.input[1]]).reshape(-1)
        if not all(
            _is_plain(product, node.output[0], tensors) and len(readers[product.input[1]]) == 1 for product in products
        ):
            continue
        for product in products:
            weight = tensors[product.input[1]]
            values = onnx.numpy_helper.to_array(weight)
            flipped = any(entry.name == "transB" and entry.i for entry in product.attribute)
            smoothed = values * (scale if flipped else scale[:, None])
            weight.CopyFrom(onnx.numpy_helper.from_array(smoothed.astype(values.dtype), weight.name))
            product.input[0] = node.input[0]
        graph.graph.node.remove(node)


def _is_plain(node: onnx.NodeProto, smoothed: str, tensors: dict[str, onnx.TensorProto]) -> bool:
    """Whether a product reads the smoothed tensor and constant weights, both in floating point."""
    return node.op_type in ("Gemm", "MatMul") and node.input[0] == smoothed and node.input[1] in tensors


def feed_products(graph: onnx.ModelProto) -> None:
    """Put quantisers right in front of products that have quantised weights but no quantised input, in place.

    NNCF quantises what goes into a concatenation or a resize, and leaves it to the runtime to see that what comes out
    is quantised as well. OpenVINO sees it. TensorRT computes a product in INT8 where both inputs come from a
    DequantizeLinear (developer guide, "Explicit quantization"), so they do.
    """
    tensors = {tensor.name: tensor for tensor in graph.graph.initializer}
    made_by = {name: node for node in graph.graph.node for name in node.output}
    nodes: list[onnx.NodeProto] = []
    for node in graph.graph.node:
        if node.op_type in PRODUCTS and _made_of(node.input[1], made_by) == "DequantizeLinear":
            step = _largest_step(node.input[0], made_by, tensors)
            if step is not None and _made_of(node.input[0], made_by) != "DequantizeLinear":
                scale, zero, codes, values = (f"{node.name}/fed_{part}" for part in ("step", "zero", "codes", "values"))
                graph.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(step), scale))
                graph.graph.initializer.append(onnx.numpy_helper.from_array(np.int8(0), zero))
                nodes += [
                    onnx.helper.make_node("QuantizeLinear", [node.input[0], scale, zero], [codes], name=codes),
                    onnx.helper.make_node("DequantizeLinear", [codes, scale, zero], [values], name=values),
                ]
                node.input[0] = values
        nodes.append(node)
    del graph.graph.node[:]
    graph.graph.node.extend(nodes)


def _made_of(name: str, made_by: dict[str, onnx.NodeProto]) -> str:
    """The operator behind a tensor, beyond those that only give it another shape; empty for inputs and constants."""
    while name in made_by and made_by[name].op_type in ("Reshape", "Squeeze", "Transpose", "Unsqueeze"):
        name = made_by[name].input[0]
    return made_by[name].op_type if name in made_by else ""


def _largest_step(name: str, made_by: dict[str, onnx.NodeProto], tensors: dict[str, onnx.TensorProto]) -> float | None:
    """The largest step of the quantisers that a tensor's range comes from; None where there is another source."""
    node = made_by.get(name)
    if node is None:
        return None
    if node.op_type == "DequantizeLinear":
        scale = tensors.get(node.input[1])
        return float(onnx.numpy_helper.to_array(scale)) if scale is not None and not scale.dims else None
    if node.op_type not in WITHIN_RANGE or _overshoots(node):
        return None
    sources = node.input if node.op_type == "Concat" else node.input[:1]
    steps = [_largest_step(source, made_by, tensors) for source in sources]
    known = [step for step in steps if step is not None]
    return max(known) if len(known) == len(steps) else None


def _overshoots(node: onnx.NodeProto) -> bool:
    """Cubic interpolation leaves the range of what it interpolates."""
    return any(entry.name == "mode" and entry.s == b"cubic" for entry in node.attribute)
