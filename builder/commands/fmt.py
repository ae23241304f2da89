"""print a Dockerfile in canonical form"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator

from builder.commands import Environment
from builder.context import DOCKERFILE_LIMIT
from builder.errors import BuildError, UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `pybuild fmt`."""
    add = parser.add_argument
    add("file", metavar="FILE", nargs="*", default=["Dockerfile"], help="Dockerfiles; - is stdin (default: Dockerfile)")
    add("--check", action="store_true", help="name the files that would change, and exit 1 if there are any")
    add("--diff", action="store_true", help="print what would change as a unified diff")
    add("-w", "--write", action="store_true", help="write the result to the file, atomically")


def run(args: argparse.Namespace, env: Environment) -> int:
    """Print every file in canonical form, or do what the options say instead. A file that is no Dockerfile is reported,
    and the others are still formatted; the exit code is then 1."""
    from grammar.errors import DockerfileError
    from grammar.format import format_dockerfile

    if args.write and (args.check or "-" in args.file):
        other = "--check" if args.check else "standard input"
        raise UsageError(f"--write does not go with {other}", hint="without it the result is printed")
    changed = failed = False
    for name in args.file:
        source = _read(name, env.cwd)
        try:
            formatted = format_dockerfile(source, filename=_shown(name))
        except DockerfileError as error:
            env.stderr.write(f"pybuild: {error.render()}\n")
            failed = True
            continue
        if formatted != source:
            changed = True
            _report_change(args, env, name, (source, formatted))
        if not (args.check or args.diff or args.write):
            env.stdout_bytes.write(formatted)
    return int(failed or (changed and args.check))


def _report_change(args: argparse.Namespace, env: Environment, name: str, texts: tuple[bytes, bytes]) -> None:
    if args.check and not args.diff:
        env.stdout.write(f"{_shown(name)}\n")
    if args.diff:
        env.stdout_bytes.writelines(_diff(_shown(name), *texts))
    if args.write:
        from builder.rewrite import replace_file

        replace_file(os.path.join(env.cwd, name), texts[1])


def _shown(name: str) -> str:
    return "<stdin>" if name == "-" else name


def _read(name: str, cwd: str) -> bytes:
    """The file's bytes. Raises BuildError when it cannot be read, or holds more than a Dockerfile may."""
    if name == "-":
        source = sys.stdin.buffer.read(DOCKERFILE_LIMIT + 1)
    else:
        try:
            with open(os.path.join(cwd, name), "rb") as file:
                source = file.read(DOCKERFILE_LIMIT + 1)
        except OSError as error:
            raise BuildError(f"{name}: {(error.strerror or str(error)).lower()}") from error
    if len(source) > DOCKERFILE_LIMIT:
        raise BuildError(f"{_shown(name)} is larger than {DOCKERFILE_LIMIT >> 20} MiB")
    return source


def _diff(name: str, source: bytes, formatted: bytes) -> Iterator[bytes]:
    import difflib

    for line in difflib.diff_bytes(
        difflib.unified_diff, _lines(source), _lines(formatted), name.encode(), name.encode() + b" (formatted)"
    ):
        yield line if line.endswith(b"\n") else line + b"\n\\ No newline at end of file\n"


def _lines(text: bytes) -> list[bytes]:
    lines = [line + b"\n" for line in text.split(b"\n")]
    last = lines.pop().removesuffix(b"\n")
    return [*lines, last] if last else lines
