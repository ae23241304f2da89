"""`--cache-from` and `--cache-to` of a build: options to places, opened; what they are for is `cachestore`'s."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import partial

from builder.cachestore.exports import Exports
from builder.cachestore.imports import Imports, open_cache
from builder.cachestore.options import CacheSpec, parse_cache
from builder.cachestore.place import CacheSource, open_source, open_target
from builder.commands import Environment
from builder.plan import ExecOp, Plan
from builder.worker import Worker
from cache.namedtuple import NamedTuple
from cache.store import Store


class CacheWords(NamedTuple):
    """What the command line says of caches elsewhere."""

    sources: tuple[CacheSpec, ...]
    targets: tuple[CacheSpec, ...]


def parse_words(cache_from: Sequence[str], cache_to: Sequence[str], *, inline: bool) -> CacheWords:
    """Both options as values; `inline` adds type=inline (BUILDKIT_INLINE_CACHE=1). UsageError."""
    targets = [parse_cache(text, "to") for text in cache_to]
    if inline and not any(spec.type == "inline" for spec in targets):
        targets.append(CacheSpec("inline", {}))
    return CacheWords(tuple([parse_cache(text, "from") for text in cache_from]), tuple(targets))


def with_caches(worker: Worker, words: CacheWords, env: Environment, platform: str) -> Worker:
    """The worker with the caches that were asked for. Raises UsageError, and BuildError where one cannot be opened."""
    say = worker.reporter.message
    exports = open_exports(words, env, say)
    return worker._replace(exports=exports, imports=open_imports(words, env, worker.store, platform=platform, say=say))


def open_imports(
    words: CacheWords, env: Environment, store: Store, *, platform: str, say: Callable[[str], object]
) -> Imports | None:
    """The caches to take from, as they are now; None when there are none to ask."""
    if not words.sources:
        return None

    def opening(spec: CacheSpec) -> CacheSource:
        return open_source(spec, env.cwd, env.environ, platform)

    opened = [open_cache(spec, opening, say) for spec in words.sources]
    caches = [cache for cache in opened if cache is not None]
    for cache in caches:
        cache.source.note(store, [blob.digest for blob in cache.index.blobs()])
    return Imports(store, caches, say, random.random)


def open_exports(words: CacheWords, env: Environment, say: Callable[[str], object]) -> Exports | None:
    """The caches to give to; None when there are none."""
    if not words.targets:
        return None
    opening = partial(open_target, cwd=env.cwd, environ=env.environ)
    return Exports([(spec, None if spec.type == "inline" else opening(spec)) for spec in words.targets], say)


def mount_ids(plan: Plan) -> list[str]:
    """The ids of all cache mounts of a plan's steps."""
    return [
        mount.id
        for vertex in plan.vertices
        if isinstance(vertex.op, ExecOp)
        for mount in vertex.op.mounts
        if mount.kind == "cache"
    ]
