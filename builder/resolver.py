"""Names to sources: what FROM, --from and --build-context mean: in the local store, in OCI layouts, at registries.

Remembers every image that it resolved, so that a memoised plan is used only while each name still means the same
digest.
"""

import json
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from builder.contexts.kinds import is_remote
from builder.errors import BuildError, UsageError
from builder.fetcher import Fetcher
from builder.image.importer import import_layout
from builder.image.stored import StoredImage, platforms_of, resolve_image
from builder.plan import GitSourceOp, HttpSourceOp, ImageSourceOp, LocalSourceOp
from builder.sources import BaseSource, normal_name
from cache.namedtuple import NamedTuple
from cache.store import Store
from grammar.platforms import Platform

if TYPE_CHECKING:
    from builder.locked import Pins
    from builder.pulling import RemoteImages

_LAYOUT = "oci-layout://"
_IMAGE = "docker-image://"
_TARGET = "target:"


_SOURCES: dict[str, type[GitSourceOp | HttpSourceOp]] = {op.__name__: op for op in (GitSourceOp, HttpSourceOp)}


class Resolution(NamedTuple):
    """How a name was resolved: the words that find it again, and the manifest digest it led to.

    For the kinds `context-time` and `source-time` that is a number of seconds, "" for none.
    """

    kind: str
    where: str
    platform: str
    manifest_digest: str


class StoreResolver:
    """Finds images in the local store, in the layouts that --build-context names and, if `remote` is given, at
    registries: those that the store does not have, or with --pull all."""

    def __init__(
        self, store: Store, contexts: Mapping[str, str], *, cwd: str, remote: "RemoteImages | None" = None
    ) -> None:
        self.store = store
        self._remote = remote
        self.cwd = cwd
        self.contexts = {normal_name(name): value for name, value in contexts.items()}
        self.resolutions: list[Resolution] = []
        self.pins: Pins | None = None
        """Who says what names of images mean, if it is neither the store nor the registries."""
        self._main = ""
        self._fetcher: Fetcher | None = None

    def dates(self, main: str, fetcher: Fetcher) -> None:
        """Say which context is the main one, and what fetches; without, no context has a time."""
        self._main, self._fetcher = main, fetcher

    def directories(self) -> dict[str, str]:
        """The named contexts that are directories, by name."""
        return {name: value for name, value in self.file_contexts().items() if not is_remote(value)}

    def file_contexts(self) -> dict[str, str]:
        """The named contexts that are no images but directories, repositories and URLs, by name."""
        others = {name: value for name, value in self.contexts.items() if not value.startswith(_TARGET)}
        return {name: value for name, value in others.items() if "://" not in value or is_remote(value)}

    def named_context(self, name: str, platform: Platform) -> BaseSource | None:
        """See SourceResolver."""
        value = self.contexts.get(normal_name(name))
        if value is None or value.startswith(_TARGET):
            return None
        if value.startswith(_LAYOUT):
            return self._source("layout", value, name, platform)
        if value.startswith(_IMAGE):
            reference = value.removeprefix(_IMAGE)
            if reference == "scratch":
                return BaseSource(None, None, platform)
            return self._source("image", reference, name, platform)
        if "://" in value and not is_remote(value):
            scheme = value.partition("://")[0]
            raise UsageError(
                f'context "{name}={value}" has an unsupported kind "{scheme}"',
                hint="a named context is a directory, a git or http URL, oci-layout://DIR[:tag] or docker-image://NAME",
            )
        return BaseSource(LocalSourceOp(normal_name(name)), None, platform)

    def image(self, name: str, platform: Platform) -> BaseSource:
        """See SourceResolver."""
        return self._source("image", name, name, platform)

    def frontend(self, name: str) -> None:
        """Look up an image that a frontend is in, by the pins. Raises BuildError."""
        assert self.pins is not None
        self.resolutions.append(Resolution("frontend", name, "", self.pins.frontend(name)))

    def context_time(self, name: str) -> int | None:
        """See SourceResolver."""
        found = self._context_time(name)
        self.resolutions.append(Resolution("context-time", name, "", "" if found is None else str(found)))
        return found

    def _context_time(self, name: str) -> int | None:
        from builder.contexts.times import context_op

        text = self._main if name == "context" else self.contexts.get(normal_name(name), "")
        is_here = name == "context" and os.path.isdir(os.path.join(self.cwd, text))
        op = None if is_here else context_op(text)
        return None if op is None else self._source_time(op)

    def source_time(self, op: GitSourceOp | HttpSourceOp) -> int | None:
        """See SourceResolver."""
        found = self._source_time(op)
        where = json.dumps([type(op).__name__, *op])
        self.resolutions.append(Resolution("source-time", where, "", "" if found is None else str(found)))
        return found

    def _source_time(self, op: GitSourceOp | HttpSourceOp) -> int | None:
        from builder.contexts.times import seconds_of

        return None if self._fetcher is None else seconds_of(op, self._fetcher)

    def _source(self, kind: str, where: str, name: str, platform: Platform) -> BaseSource:
        image = self._find(kind, where, platform.short)
        if image is None:
            image = self._find_elsewhere(kind, where, name, platform.short)
        self.resolutions.append(Resolution(kind, where, platform.short, image.manifest_digest))
        layers = len(image.config.get("rootfs", {}).get("diff_ids") or ())
        op = ImageSourceOp(where, image.manifest_digest, image.chain_id, name) if layers else None
        own = Platform(
            str(image.config.get("os") or platform.os),
            str(image.config.get("architecture") or platform.architecture),
            str(image.config.get("variant") or ""),
        )
        return BaseSource(op, image.config, own, layers)

    def _find(self, kind: str, where: str, platform: str) -> StoredImage | None:
        """What is here, or with --pull what the registry says; None when it is to be looked for elsewhere."""
        if kind == "layout":
            directory, tag = split_layout(where.removeprefix(_LAYOUT), self.cwd)
            return import_layout(self.store, directory, tag, platform)
        if self.pins is not None:
            return self.pins.image(where, platform)
        if self._remote is not None and self._remote.pull:
            return self._remote.ask(where, platform)
        found = resolve_image(self.store, where, platform)
        return found if found is not None or self._remote is None else self._remote.known(where, platform)

    def _find_elsewhere(self, kind: str, where: str, name: str, platform: str) -> StoredImage:
        """The image at its registry. Raises BuildError that says all that was tried."""
        failure: BuildError | None = None
        if self._remote is not None and kind == "image":
            try:
                return self._remote.ask(where, platform)
            except BuildError as error:
                failure = error
        others = platforms_of(self.store, where) if kind == "image" else ()
        if others:
            raise BuildError(
                f"{where}: the image is for {' and '.join(others)}, not for {platform}",
                hint=f"give one that is with --build-context {name}=oci-layout://DIR"
                + (f"; at its registry: {failure}" if failure else ""),
            ) from failure
        ways = (
            f"load it with `pybuild load`, build it with -t {where}, or give it with "
            f"--build-context {name}=oci-layout://DIR"
        )
        if failure is None:
            raise BuildError(f"{where}: not found", hint=ways)
        hint = f"{failure.hint}; or {ways}" if failure.hint else ways
        raise BuildError(f"not found in the store: {failure}", hint=hint) from failure

    def still_valid(self, resolution: Resolution) -> bool:
        """Whether a name leads to the same image as it did when the plan was made."""
        if resolution.kind.endswith("-time"):
            return self._still_dated(resolution)
        try:
            if resolution.kind == "frontend":
                return self.pins is not None and self.pins.frontend(resolution.where) == resolution.manifest_digest
            image = self._find(resolution.kind, resolution.where, resolution.platform)
        except BuildError:
            return False
        return image is not None and image.manifest_digest == resolution.manifest_digest

    def _still_dated(self, resolution: Resolution) -> bool:
        if resolution.kind == "context-time":
            found = self._context_time(resolution.where)
        else:
            kind, *fields = json.loads(resolution.where)
            found = self._source_time(_SOURCES[kind](*fields))
        return resolution.manifest_digest == ("" if found is None else str(found))


def split_layout(text: str, cwd: str) -> tuple[str, str | None]:
    """`DIR`, `DIR:tag` or `DIR@sha256:…` -> the absolute directory, and the tag or digest."""
    whole = os.path.join(cwd, text)
    if os.path.isdir(whole):
        return whole, None
    directory, at_sign, digest = text.partition("@")
    if at_sign:
        return os.path.join(cwd, directory), digest
    directory, colon, tag = text.rpartition(":")
    if not colon or "/" in tag:
        return whole, None
    return os.path.join(cwd, directory), tag
