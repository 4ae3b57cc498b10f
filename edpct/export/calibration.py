"""Ranges of activations for INT8: what is clipped so that the rest is finer.

NNCF's own range is the mean of the images' largest values. The ways here look at the distribution: a quantile, the
least squared error, or the least loss of information. They read every activation in front of a quantiser while the
weights are already INT8, into histograms of fixed size, one image at a time: memory does not grow with the images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from edpct.recipe import Calibration

BINS = 2048
STEPS = 127  # of a symmetric INT8 code on one side
QUANTILE = 0.9999
TRIED = 128  # clipping points that are compared
NEARLY_NONE = 1e-9
Values = NDArray[np.floating[Any]]


class Histogram:
    """Counts of magnitudes in equal bins from 0; where a larger one comes, two bins become one until it fits."""

    def __init__(self) -> None:
        self.counts = np.zeros(BINS)
        self.top = 0.0  # magnitude at the end of the last bin

    def add(self, values: NDArray[np.float32]) -> None:
        """Count values of any shape."""
        magnitudes = np.abs(values, dtype=np.float32).ravel()
        largest = float(magnitudes.max(initial=0.0))
        if self.top == 0:
            self.top = largest
        if largest == 0:
            return
        while largest > self.top:
            self.counts = np.concatenate([self.counts.reshape(-1, 2).sum(1), np.zeros(BINS // 2)])
            self.top *= 2
        self.counts += np.histogram(magnitudes, BINS, (0.0, self.top))[0]

    @property
    def centres(self) -> Values:
        """The middle of each bin."""
        return (np.arange(BINS) + 0.5) * (self.top / BINS)


def percentile(found: Histogram) -> float:
    """The magnitude that all but one in ten thousand values stay under."""
    share = np.cumsum(found.counts) / found.counts.sum()
    return float((np.searchsorted(share, QUANTILE) + 1) * found.top / BINS)


def least_error(found: Histogram) -> float:
    """Where clipping and rounding together cost the least squared error."""
    tops = found.top * np.arange(1, TRIED + 1) / TRIED

    def error(top: float) -> float:
        step = top / STEPS
        rounded = np.clip(np.round(found.centres / step), 0, STEPS) * step
        return float((found.counts * (found.centres - rounded) ** 2).sum())

    return float(min(tops, key=error))


def least_divergence(found: Histogram) -> float:
    """Where the distribution of codes tells most of the values: least Kullback-Leibler divergence.

    Source: S. Migacz, 8-bit inference with TensorRT, GTC 2017.
    """
    counts = found.counts.copy()
    counts[0] = counts[1]  # zeros, which any scale keeps, would outweigh the rest
    edges = range(STEPS + 1, BINS + 1, (BINS - STEPS) // TRIED)
    best = min(edges, key=lambda edge: _divergence(counts, edge))
    return best * found.top / BINS


def _divergence(counts: Values, edge: int) -> float:
    """Between the counts clipped at a bin and the same merged to as many levels as INT8 has."""
    kept = counts[:edge].copy()
    held = kept > 0
    kept[-1] += counts[edge:].sum()  # what is clipped takes the last value
    bounds = np.linspace(0, edge, STEPS + 2).astype(int)[:-1]
    sums = np.add.reduceat(counts[:edge], bounds)
    filled = np.add.reduceat(held.astype(float), bounds)
    level = np.repeat(np.arange(len(bounds)), np.diff([*bounds, edge]))
    merged = np.where(held, (sums / np.maximum(filled, 1))[level], 0.0)
    if not merged.any():
        return np.inf
    first, second = kept / kept.sum(), merged / merged.sum()
    both = (first > 0) & (second > 0)
    # A clipped value where the merged has none cannot be told at all; a small probability stands for none.
    lost = (first > 0) & (second == 0)
    told = (first[both] * np.log(first[both] / second[both])).sum()
    return float(told + (first[lost] * np.log(first[lost] / NEARLY_NONE)).sum())


CLIPPING: dict[Calibration, Callable[[Histogram], float]] = {
    "percentile": percentile,
    "mse": least_error,
    "entropy": least_divergence,
}


def recalibrate(graph: onnx.ModelProto, feeds: Iterable[dict[str, NDArray[np.float32]]], way: Calibration) -> None:
    """Set the scales of a symmetric INT8 graph's activations anew, in place.

    Quantisers that NNCF gave one scale, as those in front of a concatenation, keep one: the largest of theirs. Scales
    of more than one value (activations per channel) stay.

    Args:
        feeds: the calibration images as the network takes them, by the input's name.
        way: one of :data:`CLIPPING`.
    """
    tensors = {tensor.name: tensor for tensor in graph.graph.initializer}
    quantisers = [
        node for node in graph.graph.node if node.op_type == "QuantizeLinear" and node.input[0] not in tensors
    ]
    single = [node for node in quantisers if not tensors[node.input[1]].dims]
    histograms = _observe(graph, quantisers, sorted({node.input[0] for node in single}), feeds)
    former = {node.output[0]: float(onnx.numpy_helper.to_array(tensors[node.input[1]])) for node in single}
    steps: dict[float, float] = {}  # by what the step was
    for node in single:
        if histograms[node.input[0]].top > 0:
            step = CLIPPING[way](histograms[node.input[0]]) / STEPS
            steps[former[node.output[0]]] = max(step, steps.get(former[node.output[0]], 0.0))
    for node in graph.graph.node:
        codes = node.output[0] if node.op_type == "QuantizeLinear" else node.input[0]
        if node.op_type in ("QuantizeLinear", "DequantizeLinear") and former.get(codes) in steps:
            value = np.asarray(steps[former[codes]], np.float32)
            tensors[node.input[1]].CopyFrom(onnx.numpy_helper.from_array(value, node.input[1]))


def _observe(
    graph: onnx.ModelProto,
    quantisers: list[onnx.NodeProto],
    names: list[str],
    feeds: Iterable[dict[str, NDArray[np.float32]]],
) -> dict[str, Histogram]:
    """Histograms of activations, with quantised weights and without quantisers between the layers."""
    plain = onnx.ModelProto()
    plain.CopyFrom(graph)
    source = {node.output[0]: node.input[0] for node in quantisers}
    source |= {
        node.output[0]: source[node.input[0]] for node in graph.graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in source
    }  # fmt: skip
    kept = [node for node in plain.graph.node if node.output[0] not in source]
    for node in kept:
        for place, name in enumerate(node.input):
            node.input[place] = source.get(name, name)
    del plain.graph.node[:]
    plain.graph.node.extend(kept)
    own = {value.name for value in (*plain.graph.output, *plain.graph.input)}
    plain.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in names if name not in own
    )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # it warns of scales that nothing reads now
    session = onnxruntime.InferenceSession(plain.SerializeToString(), options, providers=["CPUExecutionProvider"])
    inside = [name for name in names if name not in {value.name for value in plain.graph.input}]
    histograms = {name: Histogram() for name in names}
    for feed in feeds:
        for name, values in (*zip(inside, session.run(inside, feed), strict=True), *feed.items()):
            if name in histograms:
                histograms[name].add(values)
    return histograms
