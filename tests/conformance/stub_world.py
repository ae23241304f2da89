"""The world of images that the goldens' evaluation was made in: every name is an image with one layer and a PATH."""

from __future__ import annotations

from typing import Any

from builder.config import DEFAULT_PATH
from builder.errors import BuildError
from builder.options import BuildOptions
from builder.plan import GitSourceOp, HttpSourceOp, ImageSourceOp
from builder.scope import Checks
from builder.sources import BaseSource
from grammar.ignore import IgnoreMatcher, read_patterns
from grammar.lint import Linter
from grammar.platforms import Platform
from grammar.reference import parse_reference
from tests.conformance.compare import Case, text_bytes

HOST = Platform("linux", "amd64")
_WORLD = "corpus.invalid/"
_LAYER = "sha256:" + "1" * 64

_CONFIGS: dict[str, dict[str, Any]] = {
    "onbuild": {"OnBuild": ["RUN echo from-base", "COPY . /app", "ENV BASE_SET=1"]},
    "onbuildbad": {"OnBuild": ["NOPE x"]},
    "onbuildcopy": {"OnBuild": ["COPY --from=builder /x /y"]},
    "env": {"Env": ["PATH=/opt/bin:/usr/bin", "BASEVAR=base", "EMPTYVAR="], "WorkingDir": "/srv", "User": "app"},
}
_PLATFORMS = {"arm64only": Platform("linux", "arm64", "v8"), "windowsonly": Platform("windows", "amd64")}


class StubWorld:
    """A SourceResolver in which almost every image exists."""

    def named_context(self, name: str, platform: Platform) -> BaseSource | None:
        return None

    def context_time(self, name: str) -> int | None:
        return None

    def source_time(self, op: GitSourceOp | HttpSourceOp) -> int | None:
        return None

    def image(self, name: str, platform: Platform) -> BaseSource:
        reference = parse_reference(name)
        kind = reference.path if reference.domain + "/" == _WORLD else ""
        if kind == "missing":
            raise BuildError(f"{name}: not found")
        own = _PLATFORMS.get(kind, platform)
        config = {"Env": [] if own.os == "windows" else ["PATH=" + DEFAULT_PATH], **_CONFIGS.get(kind, {})}
        document: dict[str, Any] = {"os": own.os, "architecture": own.architecture, "variant": own.variant}
        document["config"] = config
        if kind == "nolayers":
            return BaseSource(None, document, own)
        document["rootfs"] = {"type": "layers", "diff_ids": [_LAYER]}
        document["history"] = [{"created_by": "corpus base"}]
        return BaseSource(ImageSourceOp(name, "sha256:" + "a" * 64, _LAYER, name), document, own, 1)


def build_options(**build_args: str) -> BuildOptions:
    """The options of a build in this world."""
    return BuildOptions(build_args=build_args)


def checks(golden: Case, linter: Linter) -> Checks:
    """Where a case's findings go, with its ignore file."""
    text = golden.get("dockerignore")
    patterns = read_patterns(text_bytes(text)) if text is not None else []
    return Checks(linter, IgnoreMatcher(patterns) if patterns else None)
