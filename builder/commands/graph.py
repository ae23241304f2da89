"""Print the graph of operations that a Dockerfile becomes: text, Graphviz dot or JSON."""

from __future__ import annotations

import argparse
import json

from builder.commands import Environment, build_options, session
from builder.contexts.opening import Source, add_named
from builder.errors import BuildError
from builder.fetcher import Fetcher
from builder.frontend import load_plan
from builder.graph import generations
from builder.image.platform import host_platform
from builder.plan import SCRATCH, Plan
from builder.pulling import RemoteImages
from builder.resolver import StoreResolver

BARE = build_options.BARE


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that decide the plan, and the format."""
    add = parser.add_argument
    add("context", metavar="PATH", nargs="?", default=".", help="the context directory (default: here)")
    add("--format", default="text", choices=("text", "dot", "json"), help="how to print (default: text)")
    build_options.locked_argument(parser)
    build_options.add_plan_arguments(parser)


def run(args: argparse.Namespace, env: Environment) -> int:
    """Print the plan; nothing is run and no file of the context is read."""
    options = build_options.plan_options(args, env)
    with env.open_store() as store:
        images = RemoteImages(store, env.environ, pull=args.pull)
        resolver = StoreResolver(store, options.named_contexts, cwd=env.cwd, remote=images)
        fetcher = Fetcher(store, env.clock, images=images)
        resolver.dates(args.context, fetcher)
        source = Source(fetcher, env.cwd, options.build_args)
        context = session.opened_context(args, env, source, resolver)
        add_named(context, resolver.file_contexts(), source)
        try:
            plan = load_plan(context, options, resolver, memo=store.memo, host=host_platform(), clock=env.clock)
        except BuildError as error:
            error.excerpt = session.excerpt_of(error, context)
            raise
        finally:
            images.close()
    env.stdout.write({"text": _text, "dot": _dot, "json": _json}[args.format](plan))
    return 0


def _text(plan: Plan) -> str:
    lines = []
    for number, group in enumerate(generations(plan)):
        for index in group:
            vertex = plan.vertices[index]
            needs = ", ".join("scratch" if source == SCRATCH else f"#{source}" for source in vertex.inputs)
            place = f"  (line {vertex.location.start_line})" if vertex.location else ""
            lines.append(f"{number:>3}  #{index:<3} {vertex.name}{place}{'  <- ' + needs if needs else ''}\n")
    for image in plan.images:
        lines.append(f"image  {'scratch' if image.vertex == SCRATCH else f'#{image.vertex}'}  {image.platform}\n")
    return "".join(lines)


def _dot(plan: Plan) -> str:
    lines = ["digraph build {\n", "  rankdir=LR;\n", '  node [shape=box, fontname="monospace"];\n']
    for index, vertex in enumerate(plan.vertices):
        lines.append(f"  v{index} [label={json.dumps(vertex.name)}];\n")
        for position, source in enumerate(vertex.inputs):
            if source != SCRATCH:
                style = "" if position == 0 else " [style=dashed]"
                lines.append(f"  v{source} -> v{index}{style};\n")
    for image in plan.images:
        if image.vertex != SCRATCH:
            lines.append(f"  v{image.vertex} [peripheries=2];\n")
    return "".join([*lines, "}\n"])


def _json(plan: Plan) -> str:
    vertices = [
        {
            "index": index,
            "op": type(vertex.op).__name__.removesuffix("Op").lower(),
            "name": vertex.name,
            "stage": vertex.stage,
            "inputs": list(vertex.inputs),
            "lines": [vertex.location.start_line, vertex.location.end_line] if vertex.location else None,
        }
        for index, vertex in enumerate(plan.vertices)
    ]
    images = [{"vertex": image.vertex, "platform": image.platform, "target": image.target} for image in plan.images]
    return json.dumps({"vertices": vertices, "images": images}, indent=2) + "\n"
