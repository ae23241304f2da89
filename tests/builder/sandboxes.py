"""A busybox root, and a box that runs shell commands in sandboxes on it."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import tarfile
import threading
from pathlib import Path
from typing import Any, NamedTuple

from builder.entitlements import EVERYTHING
from builder.sandbox.launcher import Launcher, StartedStep, Streams
from builder.sandbox.spec import Mount, ProcessSpec, RootMount
from tests.shared import shared_dir

PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PASSWD = "root:x:0:0:root:/root:/bin/sh\nbin:x:1:1::/bin:\n1000:x:0:0:trap:/trap:\napp:x:1000:1000::/home/app:/bin/sh\n"
GROUP = "root:x:0:\nbin:x:1:\nstaff:x:50:app,other\napp:x:1000:\naudio:x:63:other,app\n"


class Result(NamedTuple):
    """What a command did."""

    code: int
    out: str
    err: str
    upper_dir: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()

    def upper(self) -> list[str]:
        """Every path in the upper directory."""
        found = []
        for where, directories, files in os.walk(self.upper_dir):
            found += [os.path.join(where, name)[len(self.upper_dir) :] for name in directories + files]
        return sorted(found)


def busybox_program(directory: Path) -> str:
    """A static busybox: the machine's own, else that of the shared image."""
    found = shutil.which("busybox")
    if found:
        return found
    shared = shared_dir()
    assert shared is not None, "no busybox on PATH and no shared image"
    layout = shared / "conformance" / "images" / "busybox"
    document = json.loads((layout / "index.json").read_text())
    while "layers" not in document:
        digest = document["manifests"][0]["digest"].split(":")[1]
        document = json.loads((layout / "blobs" / "sha256" / digest).read_text())
    layer = layout / "blobs" / "sha256" / document["layers"][0]["digest"].split(":")[1]
    with tarfile.open(layer) as archive:
        member = archive.extractfile("bin/busybox")
        assert member is not None
        (directory / "busybox").write_bytes(member.read())
    (directory / "busybox").chmod(0o755)
    return str(directory / "busybox")


def make_root(directory: Path) -> str:
    """A lower directory with busybox, passwd and group."""
    root = directory / "busybox-root"
    for name in ("bin", "dev", "etc", "home/app", "proc", "root", "sys", "tmp"):
        (root / name).mkdir(parents=True)
    (root / "tmp").chmod(0o1777)
    shutil.copy(busybox_program(directory), root / "bin" / "busybox")
    listed = subprocess.run([root / "bin" / "busybox", "--list"], capture_output=True, text=True, check=True)
    for applet in set(listed.stdout.split()) - {"busybox"}:
        (root / "bin" / applet).symlink_to("busybox")
    (root / "etc" / "passwd").write_text(PASSWD)
    (root / "etc" / "group").write_text(GROUP)
    return str(root)


class Box:
    """Sandboxes on one busybox root, each with an upper directory of its own."""

    def __init__(self, directory: Path, lower_dir: str) -> None:
        self.directory = directory
        self.lower_dir = lower_dir
        self.launcher = Launcher(granted=EVERYTHING)
        self._count = 0

    def lower(self, name: str = "extra") -> Path:
        """A new directory that can be a layer on top of busybox."""
        path = self.directory / name
        path.mkdir()
        return path

    def root(self, *layers: Path, **fields: Any) -> RootMount:
        """A root of `layers` (top first) on busybox."""
        self._count += 1
        place = self.directory / f"step-{self._count}"
        (place / "diff").mkdir(parents=True)
        (place / "work").mkdir()
        lower_dirs = (*(str(layer) for layer in layers), self.lower_dir)
        return RootMount(lower_dirs, str(place / "diff"), str(place / "work"), **fields)

    def run(self, *command: str, root: RootMount | None = None, stdin: bytes | None = None, **fields: Any) -> Result:
        """Run a shell command line, or a program with arguments; everything else goes to the spec."""
        argv = ("/bin/sh", "-c", command[0]) if len(command) == 1 else command
        spec = ProcessSpec(argv, fields.pop("env", (PATH,)), **fields)
        root = root or self.root()
        with Output() as out, Output() as err:
            stdin_fd = None if stdin is None else _pipe_with(stdin)
            status = self.launcher.run(spec, root, Streams(stdin_fd, out.writing, err.writing))
            if stdin_fd is not None:
                os.close(stdin_fd)
            return Result(status.code, out.finish(), err.finish(), root.upper_dir or "")

    def start(self, command: str, **fields: Any) -> Running:
        """Run a shell command line in the background, until it has started."""
        return Running(self, command, fields)


class Running:
    """A command in the background."""

    def __init__(self, box: Box, command: str, fields: dict[str, Any]) -> None:
        self._started = threading.Event()
        self._step: StartedStep | None = None
        self.code: int | None = None
        self.output = Output()
        self._thread = threading.Thread(target=self._run, args=(box, command, fields))
        self._thread.start()
        assert self._started.wait(20), "the step did not start"

    @property
    def step(self) -> StartedStep:
        assert self._step is not None
        return self._step

    def join(self) -> int | None:
        """The exit code."""
        self._thread.join(20)
        assert not self._thread.is_alive(), "the step did not end"
        return self.code

    def _run(self, box: Box, command: str, fields: dict[str, Any]) -> None:
        spec = ProcessSpec(("/bin/sh", "-c", command), (PATH,), **fields)
        streams = Streams(None, self.output.writing, self.output.writing)
        self.code = box.launcher.run(spec, box.root(), streams, on_start=self._on_start).code

    def _on_start(self, step: StartedStep) -> None:
        self._step = step
        self._started.set()


class Output:
    """A pipe that is read all the time."""

    def __init__(self) -> None:
        self.reading, self.writing = os.pipe()
        self._read = io.BytesIO()
        self._thread = threading.Thread(target=self._collect, daemon=True)
        self._thread.start()

    def __enter__(self) -> Output:
        return self

    def __exit__(self, *_: object) -> None:
        if self.writing >= 0:
            self.finish()

    def finish(self) -> str:
        """Everything that was written, once all writers are gone."""
        os.close(self.writing)
        self.writing = -1
        self._thread.join(20)
        assert not self._thread.is_alive(), "something still holds the output open"
        os.close(self.reading)
        return self._read.getvalue().decode(errors="surrogateescape")

    def _collect(self) -> None:
        while chunk := os.read(self.reading, 65536):
            self._read.write(chunk)


def bind(source: object, target: str, **options: Any) -> Mount:
    """A bind mount of a path."""
    return Mount("bind", target, str(source), options.pop("read_only", False), options)


def _pipe_with(content: bytes) -> int:
    reading, writing = os.pipe()
    os.write(writing, content)
    os.close(writing)
    return reading
