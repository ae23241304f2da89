"""--resource, and the older options for the same: text to Limits.

Source: docker buildx build reference, --resource; docker build reference for --memory and its relatives.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from builder import resources_more
from builder.errors import UsageError
from builder.frontend_options import read_resources
from builder.frontend_values import Resources, cpu_set

if TYPE_CHECKING:
    from builder.sandbox.spec import Limits

_SIZES = ("memory", "memory-swap")
_SETS = ("cpuset-cpus", "cpuset-mems")
_BOUNDS = {"cpu-shares": (2, 262144), "cpu-period": (1000, 1_000_000), "cpu-quota": (1000, 1 << 62)}
"""What the kernel takes (cgroup-v1/cpusets.rst, scheduler/sched-bwc.rst); times are microseconds."""
NAMES = (*_SIZES, *_BOUNDS, *_SETS)
_KNOWN = (*NAMES, *resources_more.NAMES)
_ATTRIBUTES = {name: name.replace("-", "") for name in NAMES} | {"memory-swap": "memswap"}
"""What a frontend calls them."""


def add_arguments(parser: argparse.ArgumentParser, whose: str) -> None:
    """Declare --resource, --cgroup-parent and the options of `docker build` and `docker run` that say one resource
    each."""
    add = parser.add_argument
    what = f"limit what {whose} may use: {', '.join(_KNOWN)}; a limit that cannot be set is an error"
    add("--resource", action="append", default=[], metavar="NAME=VALUE,…", help=what)
    add("--cgroup-parent", default="", metavar="GROUP", help=f"the control group below which {whose} gets its own")
    short = {"memory": ("-m",), "cpu-shares": ("-c",)}
    for name in NAMES:
        flags = (*short.get(name, ()), f"--{name}")
        help_text = f"--resource {name}=VALUE"
        add(*flags, dest="resource", action="append", type=_written(name), metavar="VALUE", help=help_text)
    resources_more.add_arguments(parser, _written)


def cgroup_parent(text: str) -> str:
    """--cgroup-parent as a path from the root of a hierarchy. Raises UsageError for one that leads upwards."""
    if ".." in text.split("/"):
        raise UsageError(f'--cgroup-parent "{text}" leads upwards')
    return text.strip("/")


def _written(name: str) -> Callable[[str], str]:
    """How the value of an option is a word of --resource, whatever commas it has."""
    return f'"{name}={{}}"'.format


def parse_limits(texts: Iterable[str]) -> Limits:
    """The limits of all --resource; of one that is said twice the last counts. Raises UsageError."""
    words = list(_words(texts))
    given = limits(read_resources(_attributes(words)))
    more: dict[str, list[str]] = {}
    for name, value in words:
        if name in resources_more.NAMES:
            more.setdefault(name, []).append(value)
    return resources_more.with_more(given, more)


def attributes(texts: Iterable[str]) -> dict[str, str]:
    """--resource as attributes of a frontend: sizes in bytes, names without their dashes. Raises UsageError.

    Those of `resources_more` have no such attribute.
    """
    return _attributes(_words(texts))


def _words(texts: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Names and values, in order."""
    for text in texts:
        for field in _fields(text):
            name, equals, value = field.partition("=")
            if name not in _KNOWN or not equals or not value:
                known = ", ".join(_KNOWN)
                raise UsageError(f'--resource "{field}" is not known', hint=f"write NAME=VALUE, NAME one of {known}")
            yield name, value


def _attributes(words: Iterable[tuple[str, str]]) -> dict[str, str]:
    known = ((name, value) for name, value in words if name in NAMES)
    return {_ATTRIBUTES[name]: _bytes(name, value) if name in _SIZES else value for name, value in known}


def limits(given: Resources) -> Limits:
    """What the sandbox is to set; UsageError for what the kernel would not take."""
    from builder.sandbox.spec import Limits

    for name, (low, high) in _BOUNDS.items():
        value = getattr(given, _ATTRIBUTES[name])
        if value and not low <= value <= high:
            raise UsageError(f'{name} "{value}" is not a number from {low} to {high}')
    if given.memswap and given.memswap != -1 and given.memswap < (given.memory or 1 << 62):
        raise UsageError(
            "--resource memory-swap is memory and swap together: it needs memory, and to be no less",
            hint="for example --resource memory=512m,memory-swap=1g",
        )
    return Limits(
        given.memory or None,
        given.memswap or None,
        given.cpushares or None,
        given.cpuperiod or None,
        given.cpuquota or None,
        cpu_set(given.cpusetcpus, "cpuset-cpus"),
        cpu_set(given.cpusetmems, "cpuset-mems"),
    )


def _fields(text: str) -> list[str]:
    import csv

    try:
        rows = list(csv.reader([text], strict=True))
    except csv.Error as error:
        raise UsageError(f'--resource "{text}" is not valid CSV: {error}') from error
    return rows[0] if rows else []


def _bytes(name: str, value: str) -> str:
    if value == "-1" and name == "memory-swap":
        return value
    from grammar.errors import DockerfileError
    from grammar.values import parse_size

    try:
        return str(parse_size(value))
    except DockerfileError as error:
        raise UsageError(f'{name} "{value}" is not a size', hint="for example 512m or 2g") from error
