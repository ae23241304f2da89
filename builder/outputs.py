"""From solved vertices to results: which root and which times make each image, and where --tag and --output send it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import BinaryIO

from builder.errors import BuildError, UsageError
from builder.exporter import Exported, ImageInput, OutputSpec, Remote, export_targets, parse_output
from builder.image.names import parse_names
from builder.image.timestamp import parse_time
from builder.options import BuildOptions
from builder.plan import SCRATCH, PlannedImage
from builder.solver import Solver
from builder.state import VertexState
from cache.snapshots import EMPTY


def output_specs(
    outputs: Sequence[str], tags: Sequence[str], options: BuildOptions, *, load: bool = False, push: bool = False
) -> list[OutputSpec]:
    """What to write: every --output, the registries of the tags for --push, and the local store for --tag, --load or
    when nothing else is asked for. Raises UsageError.
    """
    specs = [parse_output(text) for text in outputs]
    if push and not any(spec.push for spec in specs):
        specs.append(OutputSpec("registry", names=tuple(tags), push=True))
    specs = [_named(spec, tuple(tags)) for spec in specs]
    if sum(spec.dest == "-" for spec in specs) > 1:
        raise UsageError("several outputs want standard output", hint="give all but one a file: dest=FILE")
    for spec in specs:
        if spec.push and not parse_names(spec.names):
            raise UsageError("an image is pushed under a name", hint="give one with -t, or with name= in --output")
    if (tags or load or not specs) and not any(spec.type == "image" for spec in specs):
        specs.append(OutputSpec("image", names=tuple(tags)))
    if options.multi_platform:
        _check_platforms(specs)
        specs = [spec._replace(needs_index=True) for spec in specs]
    return specs


def _named(spec: OutputSpec, tags: tuple[str, ...]) -> OutputSpec:
    """With --tag: the store's image has all names, an archive or a push those that it says or else the tags."""
    if spec.type == "image" and not spec.push:
        return spec._replace(names=tuple(dict.fromkeys((*spec.names, *tags))))
    return spec._replace(names=spec.names or tags) if spec.type in ("oci", "docker") or spec.push else spec


def _check_platforms(specs: Sequence[OutputSpec]) -> None:
    """Say before the build what could not be written after it."""
    for spec in specs:
        if spec.type == "docker":
            raise UsageError(
                "a docker archive holds an image for one platform", hint="write an index: -o type=oci,dest=FILE"
            )


def write_outputs(solver: Solver, specs: Sequence[OutputSpec], *, stdout: BinaryIO) -> list[Exported]:
    """Write every output; returns what each became. Raises BuildError when one cannot be written."""
    images = [_image_input(solver, planned) for planned in solver.plan.images]
    exported = []
    for number, spec in enumerate(specs):
        if spec.dest:
            solver.worker.reporter.message(
                f"writing {spec.type} to {'standard output' if spec.dest == '-' else spec.dest}"
            )
        with _remote(solver, spec, -1 - number) as remote:
            exported += export_targets(solver.worker.store, images, spec, stdout, remote=remote)
    return exported


@contextmanager
def _remote(solver: Solver, spec: OutputSpec, index: int) -> Iterator[Remote | None]:
    """What a push needs. It is shown like a vertex, which has no place in the plan."""
    registries = solver.worker.inputs.fetcher.images
    if not spec.push or registries is None:
        yield None
        return
    reporter, began = solver.worker.reporter, time.perf_counter()
    reporter.started(index, f"pushing {', '.join(spec.names)}")
    try:
        yield Remote(registries, lambda *progress: reporter.transfer(index, *progress))
    except BaseException as error:
        reporter.failed(index, str(error), time.perf_counter() - began)
        raise
    reporter.done(index, time.perf_counter() - began, cached=False)


def _image_input(solver: Solver, planned: PlannedImage) -> ImageInput:
    state = None if planned.vertex == SCRATCH else solver.states[planned.vertex]
    snapshot = EMPTY if state is None or state.result is None else state.result
    layers = solver.layer_states(planned.vertex)
    created = layers[-1].created_ns if layers else _created_without_layers(solver, planned)
    if solver.worker.exports is not None:
        planned = solver.worker.exports.inline(planned, snapshot)
    times = _entry_times(planned, layers, created)
    name = state.vertex.name if state is not None else ""
    return ImageInput(planned, snapshot, times, created, name, planned.epoch)


def _created_without_layers(solver: Solver, planned: PlannedImage) -> int:
    """When an image was made that only says something about its base: when that was made, else when it was planned."""
    for entry in reversed(planned.base_history):
        time_ns = parse_time(str(entry.get("created", "")))
        if time_ns is not None:
            return time_ns
    return solver.plan.made_ns


def _entry_times(planned: PlannedImage, layers: Sequence[VertexState], created: int) -> tuple[int, ...]:
    """A time for each history entry: its layer's, for one without a layer that of the layer before it.

    Entries before the first layer get the first layer's. So a build that is all cached gives the same image again.
    """
    with_layer = sum(not entry.empty_layer for entry in planned.history)
    own = [state.created_ns for state in layers][len(layers) - with_layer :] if with_layer else []
    times = iter(own)
    current = own[0] if own else created
    found = []
    for entry in planned.history:
        if not entry.empty_layer:
            current = next(times, current)
        found.append(current)
    return tuple(found)


def write_id_file(path: str, image_id: str) -> None:
    """--iidfile. Raises BuildError when it cannot be written."""
    try:
        with open(path, "w", encoding="ascii") as file:
            file.write(image_id)
    except OSError as error:
        raise BuildError(f"iidfile {os.fsdecode(path)}: {(error.strerror or '').lower()}") from error
