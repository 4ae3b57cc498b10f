"""ONNX to the bytes of a plan, with TensorRT's own objects: 10, 11 and for RTX, which share one Python API.

Networks are strongly typed: precision is what the graph says. TensorRT 11 knows nothing else, TensorRT 10 is asked for
it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edpct.errors import BuildError
from edpct.recipe import BuildOptions
from edpct.runtimes.sidecar import TensorInfo

if TYPE_CHECKING:
    import tensorrt

Step = Callable[[str, int, int], None]  # phase, steps done, steps in all


@dataclass(frozen=True)
class Built:
    """A plan and what TensorRT says of it.

    Attributes:
        layers: precision ("int8", "float16", "float32") that each convolution and matrix product computes in, by name.
    """

    content: bytes
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    layers: dict[str, str]


def build(trt: Any, source: Path, size: tuple[int, int], options: BuildOptions, step: Step) -> Built:
    """Parse an ONNX file and build it.

    Args:
        trt: the Python module, ``tensorrt`` or ``tensorrt_rtx``.
        size: height and width that the plan takes where those of the graph are open.
        step: is told how far the builder is; what it raises stops the build.

    Raises:
        BuildError: TensorRT refuses the graph, naming the node, or cannot build it.
    """
    log = _collecting_logger(trt)
    builder: tensorrt.Builder = trt.Builder(log)
    network: tensorrt.INetworkDefinition = builder.create_network(
        1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    )
    parser: tensorrt.OnnxParser = trt.OnnxParser(network, log)
    if not parser.parse(source.read_bytes(), str(source)):
        error: tensorrt.ParserError = parser.get_error(0)
        node = f" at the node '{error.node_name()}'" if error.node_name() else ""
        raise BuildError(f"TensorRT cannot read {source.name}{node}: {error.desc().strip()}")
    config: tensorrt.IBuilderConfig = builder.create_builder_config()
    _close_size(trt, network, size)
    _open_batches(trt, builder, network, config, options)
    _configure(trt, builder, config, options)
    monitor = _monitor(trt, step)
    config.progress_monitor = monitor
    plan: tensorrt.IHostMemory | None = builder.build_serialized_network(network, config)
    if monitor.error is not None:
        raise monitor.error
    if plan is None:
        reason = log.messages[-1] if log.messages else "no reason given"
        raise BuildError(f"TensorRT cannot build {source.name}: {reason}")
    _keep_timings(config, options)
    inputs = tuple(_info(trt, network.get_input(i)) for i in range(network.num_inputs))
    outputs = tuple(_info(trt, network.get_output(i)) for i in range(network.num_outputs))
    return Built(bytes(plan), inputs, outputs, _layers(trt, network))


def _close_size(trt: Any, network: tensorrt.INetworkDefinition, size: tuple[int, int]) -> None:
    """One size a plan: its kernels are chosen for it."""
    image: tensorrt.ITensor = network.get_input(0)
    batch, channels, *sides = _lengths(image.shape)
    if min(sides) < 0:
        image.shape = trt.Dims((batch, channels, *size))


def _open_batches(
    trt: Any,
    builder: tensorrt.Builder,
    network: tensorrt.INetworkDefinition,
    config: tensorrt.IBuilderConfig,
    options: BuildOptions,
) -> None:
    """Where the batch axis is open, an optimisation profile for the batches that were asked for."""
    image: tensorrt.ITensor = network.get_input(0)
    shape = _lengths(image.shape)
    if shape[0] >= 0:
        return
    profile: tensorrt.IOptimizationProfile = builder.create_optimization_profile()
    least, best, most = (trt.Dims((batch, *shape[1:])) for batch in options.batch)
    profile.set_shape(image.name, least, best, most)
    config.add_optimization_profile(profile)


def _configure(trt: Any, builder: tensorrt.Builder, config: tensorrt.IBuilderConfig, options: BuildOptions) -> None:
    """Hand the knobs over; those that the target has not were refused before."""
    if options.workspace:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace << 20)
    if options.low_memory:  # one thread and one stream: less is held at once
        builder.max_threads = 1
        config.max_aux_streams = 0
    if options.level is not None:
        config.builder_optimization_level = options.level
    if options.version_compatible:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    if options.hardware_compatible == "ampere+":
        config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS
    elif options.hardware_compatible == "same-capability":
        config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.SAME_COMPUTE_CAPABILITY
    if options.timing_cache is not None:
        known = options.timing_cache.read_bytes() if options.timing_cache.exists() else b""
        config.set_timing_cache(config.create_timing_cache(known), False)
    if options.dla is not None:
        _use_dla(trt, builder, config, options.dla)


def _use_dla(trt: Any, builder: tensorrt.Builder, config: tensorrt.IBuilderConfig, core: int) -> None:
    cores = builder.num_DLA_cores  # 0 where this TensorRT has no DLA for this machine: most releases of 11
    if core >= cores:
        raise BuildError(
            f"TensorRT {trt.__version__} sees no DLA core {core} here; it sees {cores}.", "Leave --dla out."
        )
    config.default_device_type = trt.DeviceType.DLA
    config.DLA_core = core
    config.set_flag(trt.BuilderFlag.GPU_FALLBACK)  # what the DLA has not runs on the GPU


def _keep_timings(config: tensorrt.IBuilderConfig, options: BuildOptions) -> None:
    if options.timing_cache is None:
        return
    cache: tensorrt.ITimingCache = config.get_timing_cache()
    partial = options.timing_cache.with_name(f".{options.timing_cache.name}.partial")
    partial.write_bytes(bytes(cache.serialize()))
    partial.replace(options.timing_cache)


def _layers(trt: Any, network: tensorrt.INetworkDefinition) -> dict[str, str]:
    """Precision of every convolution and matrix product: INT8 where its input comes from a DequantizeLinear,
    perhaps by way of a reshape or transpose.
    """
    products = (trt.LayerType.CONVOLUTION, trt.LayerType.MATRIX_MULTIPLY, trt.LayerType.DECONVOLUTION)
    dequantised: set[str] = set()
    found: dict[str, str] = {}
    for index in range(network.num_layers):
        layer: tensorrt.ILayer = network.get_layer(index)
        if layer.type == trt.LayerType.DEQUANTIZE or (
            layer.type == trt.LayerType.SHUFFLE and layer.get_input(0).name in dequantised
        ):
            dequantised.add(layer.get_output(0).name)
        elif layer.type in products:
            fed: tensorrt.ITensor = layer.get_input(0)
            found[layer.name] = "int8" if fed.name in dequantised else str(trt.nptype(fed.dtype).__name__)
    return found


def _info(trt: Any, tensor: tensorrt.ITensor) -> TensorInfo:
    shape = tuple(None if size < 0 else size for size in _lengths(tensor.shape))
    return TensorInfo(name=tensor.name, dtype=str(trt.nptype(tensor.dtype).__name__), shape=shape)


def _lengths(dims: tensorrt.Dims) -> tuple[int, ...]:
    return tuple(int(dims[axis]) for axis in range(len(dims)))


def _collecting_logger(trt: Any) -> Any:
    """A logger that keeps errors for our message instead of printing them."""

    class Collector(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.messages: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity <= trt.ILogger.Severity.ERROR:
                self.messages.append(message.strip())

    return Collector()


def _monitor(trt: Any, step: Step) -> Any:
    """TensorRT's progress as ours: the outermost phase counts. It is called on threads of TensorRT's."""

    class Monitor(trt.IProgressMonitor):
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.error: BaseException | None = None
            self._outer, self._steps = "", 0

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            if not parent_phase:
                self._outer, self._steps = phase_name, num_steps

        def step_complete(self, phase_name: str, number: int) -> bool:
            try:
                if phase_name == self._outer and self.error is None:
                    step(phase_name, number + 1, self._steps)
            except BaseException as error:  # Ctrl-C too: it cannot pass through TensorRT
                self.error = error
            return self.error is None

        def phase_finish(self, phase_name: str) -> None:
            pass

    return Monitor()
