"""The image config while a stage is being lowered: what each instruction changes in it, and the history it leaves.

Owns the document's field names (OCI image-spec, config; Docker's image-spec v1.3 for Healthcheck, Shell, OnBuild and
ArgsEscaped). Knows no vertex and no file.
"""

from __future__ import annotations

import copy
import re
import signal
from collections.abc import Mapping, Sequence
from typing import Any

from builder import gofmt
from builder.errors import BuildError
from builder.plan import HistoryEntry
from grammar.platforms import Platform, normalize

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DEFAULT_SHELL = ("/bin/sh", "-c")
_WINDOWS_SHELL = ("cmd", "/S", "/C")
_TRANSIENT = ("rootfs", "history", "created")


class ImageConfig:
    """The config document of a stage, its base's history, and the entries that the stage's instructions add."""

    def __init__(self, document: Mapping[str, Any], base_layers: int = 0) -> None:
        self.document: dict[str, Any] = {
            key: copy.deepcopy(value) for key, value in document.items() if key not in _TRANSIENT
        }
        self.config: dict[str, Any] = dict(self.document.get("config") or {})
        self.document["config"] = self.config
        self.base_history: tuple[dict[str, Any], ...] = tuple(document.get("history") or ())
        self.base_layers = base_layers
        self.history: list[HistoryEntry] = []
        self._places: dict[str, int] | None = None
        """Where in Env each variable is, once one was set here."""

    @classmethod
    def scratch(cls, platform: Platform) -> ImageConfig:
        """The config of an empty root: a PATH and the root as working directory."""
        document: dict[str, Any] = {"architecture": platform.architecture, "os": platform.os}
        if platform.variant:
            document["variant"] = platform.variant
        document["config"] = {"WorkingDir": "/"}
        if platform.os != "windows":
            document["config"]["Env"] = ["PATH=" + DEFAULT_PATH]
        return cls(document)

    def derive(self) -> ImageConfig:
        """The config that a stage FROM this one starts with: a copy, without this stage's ONBUILD triggers."""
        derived = ImageConfig(self.document, self.base_layers)
        derived.base_history = self.base_history
        derived.history = list(self.history)
        derived.config.pop("OnBuild", None)
        return derived

    def commit(self, created_by: str, *, layer: bool = False) -> None:
        """Add a history entry; `layer` says that the instruction made a layer."""
        self.history.append(HistoryEntry(created_by, empty_layer=not layer))

    @property
    def env(self) -> list[str]:
        return list(self.config.get("Env") or ())

    @property
    def working_dir(self) -> str:
        return str(self.config.get("WorkingDir") or "")

    @property
    def user(self) -> str:
        return str(self.config.get("User") or "")

    @property
    def triggers(self) -> tuple[str, ...]:
        """The ONBUILD triggers that the image carries."""
        return tuple(self.config.get("OnBuild") or ())

    @property
    def has_own_shell(self) -> bool:
        """Whether SHELL was said, here or in the base."""
        return bool(self.config.get("Shell"))

    @property
    def shell(self) -> tuple[str, ...]:
        """The words in front of a shell-form command: SHELL's, else the system's default."""
        own = self.config.get("Shell")
        if own:
            return tuple(own)
        return _WINDOWS_SHELL if self.document.get("os") == "windows" else DEFAULT_SHELL

    def ensure_path(self, system: str) -> None:
        """PATH is always set, except on Windows."""
        if system == "windows" or any(entry.partition("=")[0] == "PATH" for entry in self.env):
            return
        self.config["Env"] = [*self.env, "PATH=" + DEFAULT_PATH]
        self._places = None

    def set_env(self, pairs: Sequence[tuple[str, str]]) -> None:
        """ENV: a variable that is set again keeps its place."""
        if self._places is None:
            self.config["Env"] = self.env
            self._places = {entry.partition("=")[0]: index for index, entry in enumerate(self.env)}
        env = self.config["Env"]
        for key, value in pairs:
            place = self._places.setdefault(key, len(env))
            env[place : place + 1] = [f"{key}={value}"]
        self.commit("ENV" + _pairs_text(pairs))

    def set_labels(self, pairs: Sequence[tuple[str, str]]) -> None:
        self._mapping("Labels").update(pairs)
        self.commit("LABEL" + _pairs_text(pairs))

    def set_cmd(self, argv: Sequence[str] | None) -> None:
        self._set_list("Cmd", argv)
        self.config["ArgsEscaped"] = True
        self.commit("CMD " + gofmt.quoted_list(argv or ()))

    def set_entrypoint(self, argv: Sequence[str] | None, *, keep_cmd: bool) -> None:
        """ENTRYPOINT clears a CMD that was inherited, never one that the same stage has set."""
        self._set_list("Entrypoint", argv)
        if not keep_cmd:
            self.config.pop("Cmd", None)
        self.commit("ENTRYPOINT " + gofmt.quoted_list(argv or ()))

    def _set_list(self, name: str, words: Sequence[str] | None) -> None:
        """None, for no list at all, is not the empty list."""
        if words is None:
            self.config.pop(name, None)
        else:
            self.config[name] = list(words)

    def set_user(self, user: str) -> None:
        self.config["User"] = user
        self.commit("USER " + user)

    def set_working_dir(self, path: str, shown: str) -> None:
        """WORKDIR; `shown` is the path with slashes. The root needs no layer."""
        self.config["WorkingDir"] = path
        self.commit("WORKDIR " + shown, layer=shown != "/")

    def set_shell(self, words: Sequence[str]) -> None:
        self.config["Shell"] = list(words)
        self.commit("SHELL " + gofmt.plain_list(words))

    def set_stop_signal(self, name: str) -> None:
        check_signal(name)
        self.config["StopSignal"] = name
        self.commit("STOPSIGNAL " + name)

    def set_maintainer(self, name: str) -> None:
        self.document["author"] = name
        self.commit("MAINTAINER " + name)

    def expose(self, ports: Sequence[str]) -> None:
        self._mapping("ExposedPorts").update((port, {}) for port in ports)
        self.commit("EXPOSE " + gofmt.plain_list(ports))

    def add_volumes(self, volumes: Sequence[str]) -> None:
        if "" in volumes:
            raise BuildError("VOLUME specified can not be an empty string")
        self._mapping("Volumes").update((volume, {}) for volume in volumes)
        self.commit("VOLUME " + gofmt.plain_list(volumes))

    def set_healthcheck(self, test: Sequence[str], times: Mapping[str, int], retries: int) -> None:
        """HEALTHCHECK; `times` holds Interval, Timeout, StartPeriod and StartInterval in nanoseconds."""
        check: dict[str, Any] = {"Test": list(test)}
        check.update({name: value for name, value in times.items() if value})
        if retries:
            check["Retries"] = retries
        self.config["Healthcheck"] = check
        shown = " ".join(f"{name}:{gofmt.duration(value)}" for name, value in times.items())
        self.commit(f"HEALTHCHECK {{Test:{gofmt.plain_list(test)} {shown} Retries:{retries}}}")

    def add_trigger(self, expression: str) -> None:
        """ONBUILD: kept in the config, without a line of history."""
        if not self.config.get("OnBuild"):
            self.config["OnBuild"] = []
        self.config["OnBuild"].append(expression)

    def set_platform(self, platform: Platform) -> None:
        """--platform: the image says that it is for the platform that was asked for."""
        own = (self.document.get("os"), self.document.get("architecture"))
        self.document["os"], self.document["architecture"] = platform.os, platform.architecture
        for key, value in (("variant", platform.variant), ("os.version", platform.os_version)):
            if value:
                self.document[key] = value
            elif own != (platform.os, platform.architecture):
                self.document.pop(key, None)
        if platform.os_features:
            self.document["os.features"] = list(platform.os_features)

    def normalize_platform(self) -> None:
        """One spelling of system, architecture and variant."""
        system, architecture, variant = (self.document.get(key) or "" for key in ("os", "architecture", "variant"))
        normal = normalize(Platform(system, architecture, variant))
        self.document["os"], self.document["architecture"] = normal.os, normal.architecture
        self.document.pop("variant", None)
        if normal.variant:
            self.document["variant"] = normal.variant

    def add_build_labels(self, labels: Mapping[str, str]) -> None:
        """--label: set last, in no history."""
        if labels:
            self._mapping("Labels").update(labels)

    def _mapping(self, name: str) -> dict[str, Any]:
        """A field that is an object; this document has its own copy of it."""
        if not self.config.get(name):
            self.config[name] = {}
        found: dict[str, Any] = self.config[name]
        return found


def _pairs_text(pairs: Sequence[tuple[str, str]]) -> str:
    return "".join(f" {key}={value}" for key, value in pairs)


def check_signal(name: str) -> None:
    """Accept a number other than 0 or a signal's name with or without SIG, real-time ones included.

    Raises BuildError for anything else. Source: Dockerfile reference, STOPSIGNAL.
    """
    if re.fullmatch("[+-]?[0-9]{1,18}", name):
        if int(name) == 0:
            raise BuildError(f"invalid signal: {name}")
        return
    short = name.upper().removeprefix("SIG")
    if short in _signal_names():
        return
    hint = None
    if short:
        import difflib

        near = difflib.get_close_matches(short, _signal_names(), 1)
        hint = f"did you mean SIG{near[0]}?" if near else None
    raise BuildError(f"invalid signal: {name}", hint=hint)


def _signal_names() -> set[str]:
    names = {member.name.removeprefix("SIG") for member in signal.Signals}
    names |= {"CLD", "IO", "POLL", "STKFLT", "IOT", "PWR"}
    names |= {f"RTMIN+{offset}" for offset in range(1, 16)} | {f"RTMAX-{offset}" for offset in range(1, 15)}
    return names
