"""--metadata-file and --iidfile: what a build made, written down for programs.

Source: docker buildx build reference, --metadata-file; docker buildx bake for several targets.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from builder.exporter import Exported
from builder.plan import Plan
from builder.progress import usage_fields

if TYPE_CHECKING:
    from builder.sandbox.usage import Usage


def metadata(exported: Sequence[Exported]) -> dict[str, Any]:
    """The document, with buildx's keys; of several targets an object for each, by its name.

    Of several outputs of one target the last that is an image counts. Without one there is nothing to say.
    """
    found: dict[str, dict[str, Any]] = {each.target: {} for each in exported}
    for each in exported:
        found[each.target].update(_of_image(each))
    return found if len(found) > 1 else next(iter(found.values()), {})


def _of_image(exported: Exported) -> dict[str, Any]:
    if exported.descriptor is None:
        return {}
    document: dict[str, Any] = {
        "containerimage.descriptor": exported.descriptor.to_json(),
        "containerimage.digest": exported.digest,
    }
    if exported.config_id:
        document["containerimage.config.digest"] = exported.config_id
    if exported.names:
        document["image.name"] = ",".join(exported.names)
    return document


def steps_used(plan: Plan, usage: Mapping[int, Usage]) -> list[dict[str, Any]]:
    """For each step that ran, in the plan's order, its name and what it has used; seconds and bytes."""
    return [{"name": plan.vertices[index].name, **usage_fields(usage[index])} for index in sorted(usage)]


def write_metadata(path: str, exported: Sequence[Exported], steps: Sequence[dict[str, Any]] = ()) -> None:
    """--metadata-file, with the steps that ran as `pybuild.steps`. The file appears, or is replaced, as a whole.

    Raises BuildError when it cannot be written.
    """
    from builder.export.file import replaced_file

    document = metadata(exported)
    if steps:
        document["pybuild.steps"] = list(steps)
    text = json.dumps(document, indent=2, sort_keys=True)
    with replaced_file(os.path.realpath(path)) as sink:
        sink.write(text.encode())


def image_ids(exported: Sequence[Exported]) -> list[str]:
    """The id of each target's image: its config's digest, of one under an index the index's.

    Of several outputs the last that is an image counts: the local store's, which is where an id leads to something.
    """
    found: dict[str, str] = {}
    for each in exported:
        if each.image_ids:
            found[each.target] = each.config_id or each.digest
    return list(found.values())
