"""From the canonical file to what the user asked for: format, target, slimming."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from tflite_tools.c import generate, packages, verify_folder
from tflite_tools.c.generate import Sources
from tflite_tools.c.source_folder import Folder
from tflite_tools.checks import pairing
from tflite_tools.formats import ethos, int4, lut, result, slim
from tflite_tools.formats.result import TARGETS, Result
from tflite_tools.formats.slim import Pass
from tflite_tools.schema import codes, manifest
from tflite_tools.schema.contents import Graph, Model, Op

FORMATS = ("int8", "int4", "lut", "c")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What to make; combinations that no device has are refused here.

    Attributes:
        format: one of `FORMATS`.
        target: one of `TARGETS`.
        slim: drop what a device does not need.
        split_convs: bound for decoded weights, format "lut" only.
        accelerator: of target "ethos-u".
        package: whose build system the folder of C is for, one of `packages.PACKAGES`; None for
            the sources alone.
        ram_budget: bytes that activations may take in C; None for any number.
        streaming: C that takes a sequence frame by frame.
    """

    format: str = "int8"
    target: str = "any"
    slim: bool = False
    split_convs: int | None = None
    accelerator: str = ethos.DEFAULT_ACCELERATOR
    package: str | None = None
    ram_budget: int | None = None
    streaming: bool = False

    def __post_init__(self) -> None:
        if self.format not in FORMATS or self.target not in TARGETS:
            raise ValueError(f"There is no format {self.format!r} for target {self.target!r}.")
        if self.package is not None and self.format != "c":
            raise ValueError("--package is for --format c.")
        if self.package not in (None, *packages.PACKAGES):
            raise ValueError(f"There is no package {self.package!r}.")
        if self.ram_budget is not None and self.format != "c":
            raise ValueError("--ram_budget is for --format c, whose memory is planned here.")
        if self.streaming:
            self._check_streaming()
        if self.split_convs is not None and self.format != "lut":
            raise ValueError("--split_convs is for --format lut, which decodes weights.")
        if self.split_convs is not None and self.split_convs < 1:
            raise ValueError(f"--split_convs must be at least 1 byte, got {self.split_convs}.")
        if self.target == "ethos-u" and self.format != "int8":
            raise ValueError(
                f"--format {self.format} does not run on ethos-u: Vela compresses the int8 file."
            )
        if self.format == "c" and self.target != "any":
            raise ValueError("--format c is its own runtime: leave --target out.")
        if self.format == "lut" and self.target == "litert":
            raise ValueError("--format lut does not run on litert: only TFLM decodes tables.")
        if self.slim and (self.format == "c" or self.target == "ethos-u"):
            raise ValueError("--slim is for .tflite files that LiteRT or TFLM run.")

    def _check_streaming(self) -> None:
        if self.format != "c":
            raise ValueError(
                "--streaming is for --format c: a .tflite file takes whole sequences. Take C."
            )
        if self.package is not None:
            raise ValueError(
                "--streaming has no --package: their example takes whole samples. Put the files of "
                "--format c into your project."
            )
        if self.ram_budget is not None:
            raise ValueError("--streaming keeps a few rows only: leave --ram_budget out.")


@dataclasses.dataclass(frozen=True, eq=False)
class Built:
    """What was made.

    Attributes:
        files: name -> bytes; the single name "" for a single file.
        warnings: one line each.
        passes: what slimming saved.
        figures: costs by name.
        data_bytes: what a device keeps of sources, without code; None for a file it keeps whole.
        model: the single file; None for sources.
    """

    files: Mapping[str, bytes]
    warnings: tuple[str, ...] = ()
    passes: tuple[Pass, ...] = ()
    figures: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    data_bytes: int | None = None
    model: Model | None = None

    @property
    def size(self) -> int:
        """Bytes in flash; of sources, those of weights and constants."""
        if self.data_bytes is not None:
            return self.data_bytes
        return sum(len(data) for data in self.files.values())


def check_canonical(model: Model) -> None:
    """Check that a file is what formats are made from: a manifest, and int8 weights that match it.

    Raises:
        ValueError: naming the layer.
    """
    layers = model.require_manifest().layers
    packed = [t.name for g in model.graphs for t in g.tensors if t.dtype in ("INT4", "INT2")]
    decoded = [g.tensors[entry.indices].name for g in model.graphs for entry in g.encoded]
    if packed or decoded:
        name = (packed + decoded)[0]
        raise ValueError(f"The file is no canonical int8 file: {name!r} is packed already.")
    found = codes.codes_of(model)
    for entry in layers:
        if manifest.codes_digest(found[entry.name]) != entry.sha256:
            raise ValueError(f"{entry.name}: the codes do not match the manifest's SHA-256.")


def build(canonical: Model, options: Options, *, name: str = "model") -> Built:
    """Make a format of the canonical file.

    Args:
        canonical: the int8 file.
        options: what to make.
        name: of the network in generated sources.

    Raises:
        ValueError: if the file is not canonical, or the format cannot hold or run it.
        RuntimeError: if a tool that the format needs is missing. C that cannot be compiled or
            compared for want of a tool is made, with a warning; not so a package.
    """
    check_canonical(canonical)
    if options.format == "c":
        return _sources(canonical, name, options)
    if options.target == "ethos-u":
        return _compiled(canonical, options.accelerator)
    made: Result | None = None
    if options.format == "int4":
        made = int4.convert(canonical, target=options.target)
    elif options.format == "lut":
        made = lut.convert(canonical, target=options.target, split_convs=options.split_convs)
    model = canonical if made is None else made.model
    warnings = () if made is None else made.warnings
    figures: dict[str, Any] = {} if made is None else dict(made.figures)
    if not options.slim:
        return _file(model, warnings, figures=figures)
    slimmed = slim.convert(model, target=options.target)
    figures["runs_in"] = list(slimmed.accepted)
    both = tuple(dict.fromkeys((*warnings, *slimmed.result.warnings)))
    return _file(slimmed.result.model, both, slimmed.passes, figures)


def _file(
    model: Model,
    warnings: tuple[str, ...],
    passes: tuple[Pass, ...] = (),
    figures: Mapping[str, Any] | None = None,
) -> Built:
    return Built({"": model.data}, warnings, passes, figures or {}, model=model)


def _sources(canonical: Model, name: str, options: Options) -> Built:
    made = generate.generate(
        canonical, name=name, ram_budget=options.ram_budget, streaming=options.streaming
    )
    warnings = result.accepted(verify_folder.compare(Folder(name, made.files), canonical))
    figures = _stream_figures(made, canonical) | {
        "arena_bytes": made.arena_bytes,
        "packed_weight_bytes": made.packed_weight_bytes,
        "constant_bytes": made.constant_bytes,
        "channels_left_out": sum(made.left_out.values()),
    }
    texts = made.files
    if options.package is not None:
        texts = packages.pack(made, canonical, name=name, package=options.package)
    files = {path: text.encode() for path, text in texts.items()}
    kept = made.packed_weight_bytes + made.constant_bytes
    return Built(files, warnings, figures=figures, data_bytes=kept)


def _stream_figures(made: Sources, canonical: Model) -> dict[str, Any]:
    """What C that takes frames keeps and computes, on average over the frames, and when it gives
    outputs; and what C that takes the whole sequence does, with the memory of its input."""
    if made.stream is None:
        return {}
    output, tensors = made.stream.output, canonical.main.tensors
    window = sum(math.prod(tensors[index].shape) for index in canonical.main.inputs)
    return {
        "state_bytes": made.stream.state_bytes,
        "whole_sequence_bytes": generate.generate(canonical).arena_bytes + window,
        "first_output_frame": output.begin + 1,
        "output_every_frames": output.every,
        "products_a_frame": round(
            sum(
                products / made.stream.clocks[op.outputs[0]].every
                for op, products in _products(made.stream.graph)
            )
        ),
        "whole_sequence_products": sum(products for _, products in _products(canonical.main)),
    }


def _products(graph: Graph) -> list[tuple[Op, int]]:
    """How many products of a weight each operator with weights computes."""
    found = []
    for op in graph.ops:
        if op.name in pairing.KERNEL_OPS:
            weights = pairing.kernel(graph, op)
            taps = weights.weights.size // weights.weights.shape[weights.axis]
            found.append((op, taps * math.prod(graph.tensors[op.outputs[0]].shape)))
    return found


def _compiled(canonical: Model, accelerator: str) -> Built:
    made = ethos.compile_model(canonical, accelerator=accelerator)
    left = [f"{op}: stays on the CPU" for op in made.cpu_ops]
    figures = {
        "accelerator": accelerator,
        "bits_per_weight": round(made.bits_per_weight, 3),
        "compressed_weight_bytes": made.weight_bytes,
        "sram_bytes": made.sram_bytes,
        "flash_bytes": made.flash_bytes,
        "all_on_npu": not left,
    }
    return _file(made.model, tuple(left), figures=figures)
