"""From a Dockerfile's bytes to a Plan, by the memo when the same bytes and options were lowered before.

The memo is the door in front of lark and networkx: on a hit neither is imported.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Sequence
from typing import Any

from builder import codec
from builder.context import BuildContext
from builder.errors import BuildError, Location
from builder.image.platform import platform_value
from builder.options import BuildOptions
from builder.plan import GitSourceOp, HttpSourceOp, Plan
from builder.proxies import proxy_env, with_proxies
from builder.redact import redact
from builder.resolver import Resolution, StoreResolver
from cache.digest import sha256_hex
from cache.errors import StoreFullError
from cache.memo import Memo
from grammar.platforms import Platform


def load_plan(
    context: BuildContext,
    options: BuildOptions,
    resolver: StoreResolver,
    *,
    memo: Memo,
    host: str,
    clock: Callable[[], int],
    on_miss: Callable[[], None] = lambda: None,
) -> Plan:
    """The Plan of the build, and its warnings. Raises BuildError or DockerfileError as `lower` does.

    `on_miss` is called before a Dockerfile is lowered that the memo does not know: something will have to run.
    """
    if not context.source.strip():
        raise BuildError(f"the Dockerfile cannot be empty: {context.dockerfile} has no instructions")
    key = memo_key(context, options, host, locked=resolver.pins is not None)
    plan = _recall(memo.get(key), resolver)
    if plan is not None:
        return with_proxies(plan, proxy_env(options.build_args))
    on_miss()
    plan = make_plan(context, options, resolver, host)._replace(made_ns=clock())
    document = {"bases": resolver.resolutions, "plan": codec.encode(with_proxies(plan, ()))}
    with contextlib.suppress(StoreFullError):  # a plan that is not remembered costs time, not the build
        if not _has_secrets(plan, resolver.resolutions):
            memo.put(key, codec.dumps(document))
    return plan


def memo_key(context: BuildContext, options: BuildOptions, host: str, *, locked: bool = False) -> str:
    """What lowering depends on: the source, its name in messages, the ignore file, the options it sees, and this
    machine's platform. What a lock says of the names is compared when the plan is found, as what a store says is."""
    matcher = context.local("context").matcher
    seen: dict[str, Any] = {
        "codec": codec.VERSION,
        "dockerfile": context.dockerfile,
        "host": host,
        "ignored": None if matcher is None else [(each.is_exception, each.text) for each in matcher.patterns],
        "options": {name: value for name, value in options._asdict().items() if name not in ("context", "dockerfile")},
    }
    if locked:
        seen["locked"] = True  # so that builds with a lock and without do not forget each other's plans
    text = json.dumps(seen, sort_keys=True, separators=(",", ":"))
    return "plan:" + sha256_hex(text.encode("ascii") + b"\0" + context.source)


def _recall(stored: bytes | None, resolver: StoreResolver) -> Plan | None:
    if stored is None:
        return None
    document = json.loads(stored)
    bases = [Resolution(*fields) for fields in document["bases"]]
    if not all(resolver.still_valid(base) for base in bases):
        return None
    return codec.decode(document["plan"])


def make_plan(context: BuildContext, options: BuildOptions, resolver: StoreResolver, host: str) -> Plan:
    """The Plan of the build as the Dockerfile says, without the memo. Raises as `load_plan`."""
    from builder.variants import merge, variants

    own = platform_value(host)
    if resolver.pins is not None:
        _ask_frontend(context, resolver)
    return merge([_lower_one(context, each, resolver, own) for each in variants(options, own)])


def _ask_frontend(context: BuildContext, resolver: StoreResolver) -> None:
    """Have the image that `# syntax` names looked up, which nothing runs: locks have it."""
    from grammar.directives import detect_syntax

    syntax = detect_syntax(context.source)
    if syntax is None:
        return
    try:
        resolver.frontend(syntax.ref)
    except BuildError as error:
        error.location = error.location or Location(context.dockerfile, syntax.line, syntax.line)
        raise


def _lower_one(context: BuildContext, options: BuildOptions, resolver: StoreResolver, host: Platform) -> Plan:
    from builder.findings import make_linter
    from builder.lower import lower
    from builder.scope import Checks
    from grammar.stages import parse

    linter = make_linter(context.source, options)
    dockerfile = parse(context.source, filename=context.dockerfile, linter=linter)
    checks = Checks(linter, context.local("context").matcher)
    return lower(dockerfile, options, resolver, filename=context.dockerfile, host=host, checks=checks)


def _has_secrets(plan: Plan, resolutions: Sequence[Resolution]) -> bool:
    """Whether a URL in the plan has a password in it, which is not to be kept."""
    ops = [vertex.op for vertex in plan.vertices]
    urls = [op.url for op in ops if isinstance(op, HttpSourceOp)]
    urls += [op.remote for op in ops if isinstance(op, GitSourceOp)]
    urls += [resolution.where for resolution in resolutions]
    return any(redact(url) != url for url in urls)
