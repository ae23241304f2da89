"""Plans from Dockerfile text, with a world of images that is a dictionary."""

from __future__ import annotations

from typing import Any

from builder.errors import BuildError
from builder.lower import lower
from builder.options import BuildOptions
from builder.plan import GitSourceOp, HttpSourceOp, ImageSourceOp, LocalSourceOp, Plan
from builder.sources import BaseSource
from grammar.platforms import Platform
from grammar.stages import parse

HOST = Platform("linux", "amd64", "")
BUSYBOX: dict[str, Any] = {
    "architecture": "amd64",
    "os": "linux",
    "config": {"Env": ["PATH=/bin"], "Cmd": ["sh"]},
    "rootfs": {"type": "layers", "diff_ids": ["sha256:" + "1" * 64]},
    "history": [{"created_by": "ADD rootfs.tar /"}, {"created_by": 'CMD ["sh"]', "empty_layer": True}],
}


class Images:
    """A SourceResolver over dictionaries: image name -> config document, context name -> directory."""

    def __init__(self, images: dict[str, dict[str, Any]] | None = None, directories: tuple[str, ...] = ()) -> None:
        self.images = {"busybox": BUSYBOX, **(images or {})}
        self.directories = directories

    def named_context(self, name: str, platform: Platform) -> BaseSource | None:
        return BaseSource(LocalSourceOp(name), None, platform) if name in self.directories else None

    def context_time(self, name: str) -> int | None:
        return None

    def source_time(self, op: GitSourceOp | HttpSourceOp) -> int | None:
        return None

    def image(self, name: str, platform: Platform) -> BaseSource:
        if name not in self.images:
            raise BuildError(f"{name}: not found")
        document = self.images[name]
        layers = document.get("rootfs", {}).get("diff_ids", [])
        op = ImageSourceOp(name, "sha256:" + "a" * 64, layers[0], name) if layers else None
        return BaseSource(op, document, platform, len(layers))


def plan_of(text: str, resolver: Images | None = None, **options: Any) -> Plan:
    """The plan of a Dockerfile."""
    dockerfile = parse(text.encode())
    return lower(dockerfile, BuildOptions(**options), resolver or Images(), filename="Dockerfile", host=HOST)
