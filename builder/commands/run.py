"""Run a program in a container of an image, in the words of `docker run`."""

from __future__ import annotations

import argparse
import os
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from builder import resources
from builder.commands import Environment
from builder.commands.build_options import add_dns_arguments, add_security_arguments, dns_options, snapshotter_argument
from builder.entitlements import EVERYTHING
from builder.errors import BuildError, SandboxError, UsageError
from builder.runner import options as words
from builder.runner.options import RunOptions
from builder.security_options import parse_security_options
from cache.errors import CacheError

if TYPE_CHECKING:
    from builder.image.stored import StoredImage
    from builder.runner.ports import Port, Published
    from builder.sandbox.launcher import Launcher
    from cache.store import Store


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options, up to the image; everything after it is the program's, whatever it looks like."""
    parser.usage = "pybuild run [OPTIONS] IMAGE|ARCHIVE|ID [COMMAND [ARG…]]"
    add = parser.add_argument
    add(
        "-e",
        "--env",
        action="append",
        default=[],
        metavar="KEY[=VALUE]",
        help="set a variable, or pass it on from here",
    )
    add("--env-file", action="append", default=[], metavar="FILE", help="read variables from a file")
    add("-w", "--workdir", default="", metavar="PATH", help="the directory to start in")
    add("-u", "--user", default="", metavar="USER[:GROUP]", help="names or numbers")
    add("--entrypoint", metavar="COMMAND", help='instead of the ENTRYPOINT of the image; "" for none')
    add("-v", "--volume", action="append", default=[], metavar="HOST:PATH[:ro]", help="mount a path of the host")
    add("--tmpfs", action="append", default=[], metavar="PATH[:OPTIONS]", help="mount an empty file system in memory")
    pull = "ask the registry for the image: when it is missing (default), always or never"
    add("--pull", default="missing", choices=("missing", "always", "never"), help=pull)
    add("--rm", action="store_true", help="remove the container when the program ends; it is kept otherwise")
    add("--name", default="", help="name the container")
    add("--hostname", default="", help="the name of the machine (default: the id of the container)")
    network = "none, bridge (a network of its own that reaches others through this machine), or host (the default)"
    add("--network", default="default", choices=words.NETWORKS, help=network)
    publish = "pass a TCP port of this machine on to the program, which gets a network of its own"
    add("-p", "--publish", action="append", default=[], metavar="[[ADDRESS:]HOST:]PORT", help=publish)
    add_dns_arguments(parser)
    add("--add-host", action="append", default=[], metavar="NAME:ADDRESS", help="add a line to /etc/hosts")
    add("--platform", default="", metavar="OS/ARCH", help="which image of several (default: this machine's)")
    add("--read-only", action="store_true", help="let nothing be written outside of volumes")
    add("-i", "--interactive", action="store_true", help="pass stdin on")
    add("-t", "--tty", action="store_true", help="give the program a terminal")
    add("--ulimit", action="append", default=[], metavar="NAME=SOFT[:HARD]", help="a resource limit; -1 for none")
    add("--shm-size", default="", metavar="BYTES", help="the size of /dev/shm (default: 64m)")
    resources.add_arguments(parser, "the program")
    add_security_arguments(parser, "the program")
    snapshotter_argument(parser)
    # One positional for the image and all the rest: argparse would drop a `--` between two of them.
    add("words", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)


def run(args: argparse.Namespace, env: Environment) -> int:
    """Run the program; its exit code, or 125 and an error when there was no program to run."""
    given = args.words[1:] if args.words[:1] == ["--"] else args.words
    if not given:
        raise UsageError("the image is missing", hint="pybuild images lists what there is")
    if args.tty and args.interactive and not os.isatty(0):
        raise BuildError("the input device is not a TTY", hint="leave out -t when stdin is not a terminal")
    options = _options(args, env, tuple(given[1:]))
    from builder.sandbox.launcher import Launcher
    from builder.sandbox.userns import take_privileges
    from builder.sandbox.wire import CommandError

    try:
        # What is granted is what the command line says: an image asks for nothing.
        with Launcher(granted=EVERYTHING) as launcher:
            take_privileges(env.stderr.write)
            launcher.start()  # It gets ready in its own process while this one looks for the image.
            if options.network == "bridge":
                launcher.prepare_network()
            return _run(given[0], options, args, env=env, launcher=launcher)
    except UsageError:
        raise
    except CommandError as error:
        error.exit_code = error.status
        raise
    except (BuildError, CacheError) as error:
        raise SandboxError(str(error), hint=error.hint) from error


def _run(name: str, options: RunOptions, args: argparse.Namespace, *, env: Environment, launcher: Launcher) -> int:
    from builder.commands.merging import chosen
    from builder.runner.run import Request, run

    with _published(options, env) as ports, env.open_store() as store:
        launcher.snapshotter = chosen(args.snapshotter, store, lambda text: env.stderr.write(f"{text}\n"))
        image = _image(store, name, args, env)
        for note in launcher.network().notes if options.network == "bridge" else ():
            env.stderr.write(f"{note}\n")
        request = Request(image, name, options, args.name, is_kept=not args.rm, created_ns=env.clock(), ports=ports)
        status = run(request, store, launcher)
    if status.out_of_memory:
        env.stderr.write(f"pybuild: {_out_of_memory(options)}\n")
    return status.code


def _published(options: RunOptions, env: Environment) -> AbstractContextManager[Published | None]:
    """The ports of the machine; those that it has chosen are said."""
    if not options.ports:
        return nullcontext()
    from builder.runner.ports import Published

    published = Published(options.ports)
    for wanted, (host_port, container_port) in zip(options.ports, published.host_ports(), strict=True):
        if not wanted.host_port:
            env.stderr.write(f"port {container_port} is published as {wanted.address or '*'}:{host_port}\n")
    return published


def _network(args: argparse.Namespace) -> str:
    """The mode; ports are published from a network of the container's own."""
    if not args.publish or args.network == "bridge":
        return str(args.network)
    if args.network != "default":
        hint = f"leave out --network={args.network}"
        raise UsageError("ports are published from a network of the container's own only", hint=hint)
    return "bridge"


def _ports(texts: list[str]) -> tuple[Port, ...]:
    if not texts:
        return ()
    from builder.runner.ports import parse_ports

    return parse_ports(texts)


def _out_of_memory(options: RunOptions) -> str:
    from builder.quantities import shown_size

    memory = options.limits.memory if options.limits else None
    limit = f", the limit is {shown_size(memory)} (--memory)" if memory else ""
    return f"the kernel killed a process of the container: out of memory{limit}"


def _image(store: Store, name: str, args: argparse.Namespace, env: Environment) -> StoredImage:
    """The image that is here, or that a registry has under the name, as --pull says."""
    from builder.runner.find import find_image, is_name

    if args.pull == "always" and is_name(name, env.cwd):
        return _pulled(store, name, args, env)
    try:
        return find_image(store, name, env.cwd, env.clock, platform=args.platform)
    except BuildError as missing:
        if args.pull == "never" or not is_name(name, env.cwd):
            raise
        try:
            return _pulled(store, name, args, env)
        except BuildError as failure:
            missing.hint = f"{missing.hint}; at its registry: {failure}" if missing.hint else str(failure)
            raise missing from failure


def _pulled(store: Store, name: str, args: argparse.Namespace, env: Environment) -> StoredImage:
    from builder.commands.registry_options import Transfers
    from builder.image.platform import host_platform
    from builder.pulling import pull_named
    from builder.registry.client import RegistryClient

    platform = args.platform or host_platform()
    with RegistryClient(env.environ) as client, Transfers("auto", env) as transfers:
        return pull_named(store, client, name, platform, on_transfer=transfers).image


def _options(args: argparse.Namespace, env: Environment, program: tuple[str, ...]) -> RunOptions:
    return RunOptions(
        args=program,
        entrypoint=args.entrypoint,
        env=words.parse_variables(args.env, args.env_file, env.environ),
        workdir=args.workdir,
        user=args.user,
        hostname=args.hostname,
        devices=tuple(args.device),
        security=parse_security_options(args.security_opt, env.cwd),
        network=_network(args),
        ports=_ports(args.publish),
        is_read_only=args.read_only,
        is_interactive=args.interactive,
        has_terminal=args.tty,
        volumes=(
            *(words.parse_volume(text, env.cwd) for text in args.volume),
            *(words.parse_tmpfs(text) for text in args.tmpfs),
        ),
        extra_hosts=tuple(words.parse_host(text) for text in args.add_host),
        rlimits=tuple(words.parse_ulimit(text) for text in args.ulimit),
        dns=dns_options(args),
        limits=resources.parse_limits(args.resource) if args.resource else None,
        cgroup_parent=resources.cgroup_parent(args.cgroup_parent),
        shm_size=words.parse_bytes(args.shm_size, "shm-size") if args.shm_size else 0,
    )
