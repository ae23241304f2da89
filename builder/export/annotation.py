"""Annotations as `--annotation` has them: text in, values out.

Source: docker buildx build reference, --annotation.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from builder.errors import UsageError
from builder.export.spec import Annotation, OutputSpec

PLACES = ("manifest", "index", "manifest-descriptor", "index-descriptor")


def parse_annotations(texts: Iterable[str]) -> tuple[Annotation, ...]:
    """Return what each `[PLACE[[PLATFORM]],…:]KEY=VALUE` asks for, one for every place; UsageError when malformed."""
    return tuple([annotation for text in texts for annotation in _parse(text)])


def annotated(specs: Sequence[OutputSpec], texts: Iterable[str]) -> list[OutputSpec]:
    """Return the outputs with these annotations, too: those that are images. UsageError when one is malformed."""
    added = parse_annotations(texts)
    return [
        spec._replace(annotations=(*spec.annotations, *added))
        if spec.type in ("image", "registry", "oci", "docker")
        else spec
        for spec in specs
    ]


def _parse(text: str) -> list[Annotation]:
    whole, equals, value = text.partition("=")
    places, colon, key = whole.partition(":")
    if not colon:
        places, key = "manifest", whole
    if not equals or not key:
        raise UsageError(f'--annotation "{text}" is not KEY=VALUE', hint="write --annotation index:KEY=VALUE")
    return [_annotation(place, key, value, text) for place in places.split(",")]


def _annotation(place: str, key: str, value: str, text: str) -> Annotation:
    name, bracket, platform = place.partition("[")
    if name not in PLACES or (bracket and not platform.endswith("]")):
        raise UsageError(f'--annotation "{text}": "{place}" is not known, expected one of {", ".join(PLACES)}')
    return Annotation(name, platform.removesuffix("]"), key, value)
