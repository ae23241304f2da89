"""The command line: argv to one command, exceptions to text and exit code. The only place that prints an error.

Exit codes: 0; 1 the command failed; 2 usage; 125 the sandbox could not be made; 130 interrupted; `run` passes on the
program's own.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence

from builder import __version__
from builder.arguments import new_parser
from builder.commands import Environment
from builder.errors import BuildError, UsageError
from builder.streams import Streams, finish, open_streams, visible
from cache.errors import CacheError

COMMANDS = {
    "build": "build an image from a Dockerfile (also what pybuild does without a command)",
    "run": "run a program in a container of an image",
    "pull": "bring an image from its registry into the store",
    "push": "send an image to a registry",
    "copy": "copy an image between registries, layouts, archives and stores",
    "login": "log in to a registry",
    "logout": "forget the login for a registry",
    "load": "read images from an OCI or docker archive into the store",
    "import": "make an image of a root filesystem's tarball",
    "images": "list the images of the store",
    "inspect": "show an image's config and layers as JSON",
    "history": "show how an image was made",
    "tag": "give an image another name",
    "untag": "take names away from images, which stay",
    "rollback": "let a name mean what it meant before",
    "manifest": "put images for several platforms under one name",
    "rmi": "remove names of images",
    "save": "write images to an archive",
    "du": "show what the store takes on the disk",
    "prune": "remove what nothing needs from the store",
    "store": "check the store, and repair it",
    "cache": "carry the directories of RUN --mount=type=cache elsewhere",
    "lock": "write down what the names in a Dockerfile mean today, for builds with --locked",
    "explain": "say what of a build is in the cache, and why the rest is not",
    "graph": "print the graph of operations of a Dockerfile",
    "check": "find mistakes in a Dockerfile",
    "fmt": "print a Dockerfile in canonical form",
}

_MODULES = {"import": "import_"}
"""Commands whose name is no name of a module."""


_COLLECT_AFTER = 100_000
"""New objects before the first garbage collection: more than a cached build makes, few enough to weigh nothing."""


def script() -> int:
    """`main` as a whole process, which ends here: taking an interpreter apart costs a tenth of a cached build.

    Returns the exit code where the interpreter has to end it: threads are left, or the last output cannot be written.
    """
    gc.set_threshold(_COLLECT_AFTER)
    code = main()
    threading = sys.modules.get("threading")
    if threading is not None and threading.active_count() > 1:
        return code
    try:
        if sys.stderr is not None:
            sys.stderr.flush()
    except (OSError, ValueError):
        return code
    os._exit(code)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    streams = open_streams()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    code = _guarded(words, streams)
    problem = finish(streams.stdout)
    if problem:
        streams.stderr.write(f"pybuild: standard output cannot be written: {problem}\n")
    return code if problem is None else code or 1


def _guarded(words: list[str], streams: Streams) -> int:
    """One command, whose errors are printed."""
    stderr = streams.stderr
    try:
        return _dispatch(words, Environment(*streams, os.environ, _cwd(), _root(os.environ), time.time_ns))
    except KeyboardInterrupt:
        stderr.write("pybuild: interrupted\n")
        return 130
    except BrokenPipeError:
        return 1
    except (BuildError, CacheError) as error:
        stderr.write(describe(error))
        return getattr(error, "exit_code", 1)
    except Exception as error:
        text = _known_elsewhere(error)
        if text is None:
            raise
        stderr.write(text)
        return 1


def _cwd() -> str:
    try:
        return os.getcwd()
    except OSError as error:
        raise BuildError(
            f"the working directory cannot be told: {str(error.strerror).lower()}", hint="go to a directory that exists"
        ) from error


def _root(environ: Mapping[str, str]) -> str:
    """The store's directory."""
    root = environ.get("PYBUILD_ROOT")
    if not root and os.geteuid() == 0:
        root = "/var/lib/pybuild"
    if not root:
        share = environ.get("XDG_DATA_HOME") or os.path.join(_home(environ), ".local/share")
        root = os.path.join(share, "pybuild")
    return os.path.join(_cwd(), root)


def _home(environ: Mapping[str, str]) -> str:
    home = environ.get("HOME")
    if home:
        return home
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        raise UsageError("there is no home directory for the store", hint="name a store with PYBUILD_ROOT") from None


def _dispatch(words: list[str], environment: Environment) -> int:
    if words[:1] in (["-h"], ["--help"]) or (words[:1] == ["help"] and len(words) == 1):
        environment.stdout.write(_overview())
        return 0
    if words[:1] in (["--version"], ["version"]):
        environment.stdout.write(f"pybuild {__version__}\n")
        return 0
    if words[:1] == ["help"]:
        words = [words[1], "--help"]
    name = "build"
    if words and words[0] in COMMANDS:
        name = words.pop(0)
    elif len(words) == 1 and not words[0].startswith("-") and not os.path.exists(words[0]) and not _is_remote(words[0]):
        raise UsageError(f'"{words[0]}" is neither a command nor a context directory', hint=_near_command(words[0]))
    module = __import__(f"builder.commands.{_MODULES.get(name, name)}", fromlist=["run"])
    parser = new_parser(f"pybuild {name}", COMMANDS[name])
    module.add_arguments(parser)
    bare = getattr(module, "BARE", {})
    try:
        arguments = parser.parse_args([bare.get(word, word) for word in words])
    except SystemExit as stop:
        return int(stop.code or 0)
    return int(module.run(arguments, environment))


def _is_remote(word: str) -> bool:
    from builder.contexts.kinds import is_remote

    return is_remote(word)


def _overview() -> str:
    rows = "".join(f"  {name:<10}{text}\n" for name, text in COMMANDS.items())
    return (
        "usage: pybuild [COMMAND] [OPTIONS] …\n\n"
        "Build images from Dockerfiles without a daemon, and run them.\n\n"
        f"  pybuild -t app:1 .                               build the context's Dockerfile\n"
        f"  pybuild -o type=oci,dest=app.tar .               build and write an image tarball\n"
        f"  pybuild run app.tar                              run it\n\ncommands:\n{rows}\n"
        "pybuild COMMAND --help shows a command's options.\n"
    )


def _near_command(word: str) -> str:
    import difflib

    near = difflib.get_close_matches(word, COMMANDS, 1)
    return f"did you mean {near[0]}?" if near else "pybuild --help lists the commands"


def _known_elsewhere(error: Exception) -> str | None:
    """Errors whose classes stay unloaded on the warm path; None for a defect of ours, which shows its traceback."""
    module = sys.modules.get("grammar.errors")
    if module is not None and isinstance(error, module.DockerfileError):
        return f"pybuild: {error.render()}\n"
    if isinstance(error, OSError):
        where = f" {error.filename!r}:" if error.filename else ""
        return f"pybuild:{visible(where)} {(error.strerror or str(error)).lower()}\n"
    return None


def describe(error: BuildError | CacheError) -> str:
    """The whole message: what, where in the Dockerfile with a caret, the step's last output, the hint."""
    parts = []
    location = getattr(error, "location", None)
    output = getattr(error, "output", "")
    if output:
        from builder.progress import shown_line

        lines = [shown_line(line) for line in output.rstrip("\n").encode("utf-8", "replace").split(b"\n")[-20:]]
        parts.append("------\n" + "\n".join(f" > {line}" for line in lines) + "\n------")
    if location is not None:
        parts.append(f"{location.file}:{location.start_line}\n{getattr(error, 'excerpt', '')}".rstrip("\n"))
    parts.append(f"pybuild: {error}")
    if error.hint:
        parts.append(f"hint: {error.hint}")
    return visible("\n".join(parts)) + "\n"
