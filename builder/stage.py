"""One stage while it is resolved and lowered, and its commands.

Source: Dockerfile reference (FROM, ONBUILD) and BuildKit's progress names.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

from builder.config import ImageConfig
from builder.errors import BuildError, Location
from builder.plan import SCRATCH
from builder.sources import BaseSource
from cache.namedtuple import NamedTuple
from grammar.errors import DockerfileError
from grammar.nodes import Instruction
from grammar.platforms import Platform, normalize, parse_platform
from grammar.position import Range


class Command(NamedTuple):
    """An instruction with the stages that it reads (by position of its mounts; a COPY has at most one)."""

    instruction: Instruction
    sources: tuple[StageState | None, ...]
    location: Location
    on_build: bool = False


class StageState:
    """One stage while it is being resolved and lowered. Identity, not value: stages refer to each other."""

    def __init__(self, name: str, base_name: str, location: Location | None) -> None:
        self.name = name
        self.label = name
        self.base_name = base_name
        self.location = location
        self.base: StageState | None = None
        self.platform: Platform | None = None
        self.context: BaseSource | None = None
        self.source: BaseSource | None = None
        self.commands: list[Command] = []
        self.instructions: tuple[Instruction, ...] = ()
        self.unregistered = False
        self.resolved = False
        self.triggers_added = False
        self.dispatched = False
        self.no_cache = False
        self.image: ImageConfig | None = None
        self.env: dict[str, str] = {}
        self._entries: dict[str, str] = {}
        self._environ: tuple[str, ...] | None = None
        self.cwd = "/"
        self.build_args: list[tuple[str, str | None]] = []
        self.vertex = SCRATCH
        self.step = 0
        self.steps = 0
        self.names_platform = False
        """Whether the progress says which platform a step is for: when the result is an index of platforms."""
        self.used: dict[str, Range] = {}
        """Where CMD, ENTRYPOINT and HEALTHCHECK were last set in this stage."""
        self.workdir_set = False
        """Whether a WORKDIR was seen in this stage or, in the same file, below it."""

    @property
    def system(self) -> str:
        """The operating system that the stage is for."""
        return self.platform.os if self.platform else "linux"

    def depends_on(self) -> Iterator[StageState]:
        """Stages whose files this one reads, without its base."""
        for command in self.commands:
            for source in command.sources:
                if source is not None:
                    yield source

    def set_env(self, key: str, value: str) -> None:
        """A variable that is set again is the newest."""
        self.env.pop(key, None)
        self.env[key] = value
        self._entries.pop(key, None)
        self._entries[key] = f"{key}={value}"
        self._environ = None

    def entry(self, key: str, default: str) -> str:
        """NAME=VALUE of one variable."""
        return self._entries.get(key) or f"{key}={default}"

    def inherit_env(self, base: StageState) -> None:
        """Start with the variables that `base` ended with."""
        self.env, self._entries, self._environ = dict(base.env), dict(base._entries), base._environ

    @property
    def environ(self) -> tuple[str, ...]:
        """The variables as NAME=VALUE, one tuple for all steps up to the next change: there can be many of both."""
        if self._environ is None:
            self._environ = tuple(self._entries.values())
        return self._environ

    @property
    def prefix(self) -> str:
        """What names of vertices say of the stage: `linux/amd64->arm64 name `, the platform if there are several."""
        label = self.label + " " if self.label else ""
        if not self.names_platform or self.platform is None:
            return label
        return f"{self.platform}{_cross(self.platform, self.env.get('TARGETPLATFORM', ''))} {label}"

    def step_name(self, text: str, *, on_build: bool = False) -> str:
        """`[stage 2/5] text`, counting one step up. Source: BuildKit's progress names."""
        if not self.steps:
            return text
        self.step += 1
        width = int(1 + math.log10(self.steps))
        return f"[{self.prefix}{self.step:{width}d}/{self.steps}] {'ONBUILD ' if on_build else ''}{text}"


def _cross(own: Platform, target: str) -> str:
    """`->arm64` where a stage of one platform knows that it works for another."""
    try:
        wanted = normalize(parse_platform(target, own)) if target else own
    except DockerfileError:
        return ""
    if wanted[:3] == normalize(own)[:3] or not target:
        return ""
    return "->" + (wanted.short.partition("/")[2] if wanted.os == own.os else wanted.short)


@contextmanager
def at(location: Location | None) -> Iterator[None]:
    """Give errors raised inside the lines they belong to, unless they know better."""
    try:
        yield
    except BuildError as error:
        error.location = error.location or location
        raise
    except DockerfileError as error:
        if error.range is not None:
            raise
        raise BuildError(error.message, hint=error.hint, location=location) from error
