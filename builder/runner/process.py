"""An image's config and the options of `run`, made into the process to start. A pure function, no disk and no clock.

The rules are those of `docker run`: what the command line says replaces what the image says; arguments replace CMD; an
entrypoint of the command line's own drops the image's CMD too.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from typing import Any

from builder.devices import Given, Wanted, find_devices
from builder.errors import BuildError, UsageError
from builder.runner.options import RunOptions
from builder.sandbox.spec import DEFAULT_SHM_SIZE, Limits, Mount, ProcessSpec

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def process_spec(
    config: Mapping[str, Any], options: RunOptions, *, hostname: str, mounts: Sequence[Mount] = ()
) -> ProcessSpec:
    """The process that the image's `config` and the options describe; `hostname` is used where no option names one.

    Raises BuildError when there is no command.
    """
    name = options.hostname or hostname
    spec = ProcessSpec(
        argv=command(config, options),
        env=environment(config, options, name),
        cwd=working_directory(config, options),
        user=options.user or config.get("User") or "",
        hostname=name,
        network="host" if options.network == "default" else options.network,
        mounts=tuple(mounts),
        terminal=options.has_terminal,
        rlimits=options.rlimits,
        shm_size=options.shm_size or DEFAULT_SHM_SIZE,
        limits=options.limits or Limits(),
        cgroup_parent=options.cgroup_parent,
        extra_hosts=options.extra_hosts,
        dns=options.dns.servers,
        dns_search=options.dns.search,
        dns_options=options.dns.options,
        read_only_root=options.is_read_only,
        hands_over_network=bool(options.ports),
    )
    given = find_devices(Wanted(name) for name in options.devices) if options.devices else Given()
    return given.added(options.security.applied(spec))


def command(config: Mapping[str, Any], options: RunOptions) -> tuple[str, ...]:
    """ENTRYPOINT and CMD with what replaces them (Dockerfile reference, "how CMD and ENTRYPOINT interact")."""
    if options.entrypoint is not None:
        entrypoint = [options.entrypoint] if options.entrypoint else []
        arguments = list(options.args)
    else:
        entrypoint = list(config.get("Entrypoint") or [])
        arguments = list(options.args or config.get("Cmd") or [])
    argv = (*entrypoint, *arguments)
    if not argv:
        raise BuildError(
            "no command: the image has neither ENTRYPOINT nor CMD, and none was given",
            hint="put a command after the image: pybuild run IMAGE COMMAND",
        )
    return argv


def environment(config: Mapping[str, Any], options: RunOptions, hostname: str) -> tuple[str, ...]:
    """PATH, HOSTNAME and with a terminal TERM, then the command line's variables, then the image's others.

    HOME is the sandbox's to add: it is in the image's /etc/passwd.
    """
    values: dict[str, str | None] = {"PATH": DEFAULT_PATH, "HOSTNAME": hostname}
    if options.has_terminal:
        values["TERM"] = "xterm"
    wanted = dict(options.env)
    image = dict(_split(text) for text in config.get("Env") or [])
    values |= wanted
    values |= {key: value for key, value in image.items() if key not in wanted}
    return tuple(f"{key}={value}" for key, value in values.items() if value is not None)


def _split(text: str) -> tuple[str, str]:
    key, _, value = text.partition("=")
    return key, value


def working_directory(config: Mapping[str, Any], options: RunOptions) -> str:
    """The absolute path to start in; UsageError for a relative one on the command line."""
    if options.workdir and not options.workdir.startswith("/"):
        raise UsageError(f'working directory "{options.workdir}" is not an absolute path')
    path = options.workdir or config.get("WorkingDir") or "/"
    return posixpath.normpath("/" + path.lstrip("/"))
