"""Where an attack takes place: the command with a store of its own, an armed image, and canaries on the host."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from cache.removal import remove_tree
from tests.builder.image_factory import Image, layout_files, make_image, write_layout
from tests.conftest import PROJECT, Completed, Pybuild
from tests.remotes import Server, serving

SECONDS = 60
"""No attack may take longer than this on a machine that does nothing else."""
ALIVE = "alive\n"


class Member(NamedTuple):
    """A member of a tar, hostile or not."""

    name: str
    kind: bytes = tarfile.REGTYPE
    content: bytes = b""
    link: str = ""
    mode: int = 0o755
    device: tuple[int, int] = (0, 0)
    pax: Mapping[str, str] = {}


def tar_of(*members: Member, format: int = tarfile.PAX_FORMAT) -> bytes:
    """A tar of these members in this order, no questions asked."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as tar:
        for member in members:
            info = tarfile.TarInfo(member.name)
            info.type, info.linkname, info.mode = member.kind, member.link, member.mode
            info.devmajor, info.devminor = member.device
            info.size = len(member.content)
            info.pax_headers = dict(member.pax)
            tar.addfile(info, io.BytesIO(member.content))
    return buffer.getvalue()


class Scene:
    """One attack's surroundings. `host` is what it is after: a directory that its user could change, with canaries."""

    def __init__(self, pybuild: Pybuild, base_layout: Path, scratch: Path) -> None:
        self.pybuild = pybuild
        self.is_root = type(pybuild) is Pybuild
        self.scratch = scratch
        self.base_layout = base_layout
        self.host = scratch / "host"
        self.marker = str(time.monotonic_ns())
        """A word that programs which may stay behind have on their command line."""
        shutil.rmtree(scratch, ignore_errors=True)
        for name in ("canary", "dir/canary", "empty/.keep"):
            (self.host / name).parent.mkdir(parents=True, exist_ok=True)
            (self.host / name).write_text(ALIVE)
        (self.host / "dir/link").symlink_to("canary")
        self.give(self.host)
        self._machine = _machine()
        self._host_before = _listing(self.host)
        self._images = 0

    @property
    def cwd(self) -> Path:
        return self.pybuild.cwd

    @property
    def root(self) -> Path:
        """The store."""
        return self.pybuild.root

    def give(self, path: Path) -> None:
        """Let the user of the command have a file or a tree."""
        give = getattr(self.pybuild, "give", None)
        if give is not None:
            give(path)

    def file(self, name: str, content: bytes | str) -> Path:
        """A file in the context."""
        path = self.cwd / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        self.give(self.cwd)
        return path

    def __call__(self, *words: str, **options: Any) -> Completed:
        """Run the command; it ends in time and without a traceback, whatever it makes of its words."""
        done = self.pybuild(*words, timeout=2 * SECONDS, **options)
        assert "Traceback" not in done.stderr, done.stderr
        assert done.returncode in range(256), f"ended by signal {-done.returncode}"
        return done

    def build(self, dockerfile: str, *words: str, **options: Any) -> Completed:
        """Build a Dockerfile in which `base` is busybox with /probe, and `HOST` where the canaries are."""
        self.file("Dockerfile", dockerfile.replace("HOST", str(self.host)))
        context = options.pop("context", ".")
        base = f"base=oci-layout://{self.base_layout}"
        return self("build", "--build-context", base, "--progress=plain", *words, context, **options)

    def step(self, command: str, *words: str, flags: str = "", **options: Any) -> list[str]:
        """What a shell command prints in a RUN, which succeeds; a line each."""
        done = self.ok(self.build(f"FROM base\nRUN {flags} {command}\n", *words, **options))
        return printed(done)

    def ok(self, done: Completed) -> Completed:
        assert done.returncode == 0, done.stderr
        return done

    def refused(self, done: Completed, *parts: str) -> Completed:
        """The command said no, with these words."""
        assert done.returncode in (1, 2, 125), (done.returncode, done.stdout, done.stderr)
        for part in parts:
            assert part in done.stderr, done.stderr
        return done

    def image(self, *tars: bytes, **changes: Any) -> list[str]:
        """The words that make `evil` an image of these layers (uncompressed tars), on busybox unless said otherwise."""
        layers = [*(self.base_tars() if changes.pop("on_base", True) else ()), *tars]
        return self.layout(make_image(*layers, compress=False, **changes))

    def layout(self, image: Image) -> list[str]:
        """The words that make `evil` this image."""
        self._images += 1
        directory = self.scratch / f"image{self._images}"
        write_layout(directory, layout_files([image.named("latest")], image.blobs))
        self.give(directory)
        return ["--build-context", f"evil=oci-layout://{directory}"]

    def base_tars(self) -> list[bytes]:
        """The layers of `base`, uncompressed."""
        import gzip

        blobs = self.base_layout / "blobs" / "sha256"
        document = json.loads((self.base_layout / "index.json").read_text())
        while "layers" not in document:
            document = json.loads((blobs / document["manifests"][0]["digest"][7:]).read_text())
        found = [(blobs / layer["digest"][7:]).read_bytes() for layer in document["layers"]]
        return [gzip.decompress(blob) if blob[:2] == b"\x1f\x8b" else blob for blob in found]

    @contextmanager
    def server(self) -> Iterator[Server]:
        """An HTTP server of the attacker's."""
        with serving(self.scratch / "served") as server:
            yield server

    @contextmanager
    def small_disk(self, megabytes: int, inodes: int = 0) -> Iterator[None]:
        """The store on a file system of its own that is soon full. Needs root."""
        shutil.rmtree(self.root, ignore_errors=True)
        self.root.mkdir()
        options = f"size={megabytes}m" + (f",nr_inodes={inodes}" if inodes else "")
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", self.root], check=True)
        try:
            yield
        finally:
            subprocess.run(["umount", self.root], check=True)

    def check(self) -> None:
        """Nothing of the host has changed, and nothing of the attack is left."""
        assert _listing(self.host) == self._host_before
        assert _machine() == self._machine
        deadline = time.monotonic() + 5
        while (left := self.processes()) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not left, "processes are left behind"
        assert not [line for line in Path("/proc/self/mounts").read_text().splitlines() if str(self.scratch) in line]

    def processes(self) -> list[str]:
        """The processes of this attack that are still there."""
        found = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                command = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
            except OSError:
                continue
            if self.marker in command:
                found.append(f"{pid}: {command}")
        return found

    def clean(self) -> None:
        """Give the disk back; what attacks leave in a store can be too deep for shutil."""
        for directory in (self.scratch, self.root):
            if directory.exists():
                remove_tree(str(directory))


def printed(done: Completed) -> list[str]:
    """What the steps of a build wrote, without the progress around it (`#5 0.012 text`)."""
    lines = [line.split(" ", 2) for line in done.stderr.splitlines() if line.startswith("#")]
    return [line[2] for line in lines if len(line) == 3 and line[1].replace(".", "", 1).isdigit()]


def results(lines: list[str]) -> dict[str, str]:
    """`name result` of each line that the probe printed."""
    return dict(line.rsplit(" ", 1) for line in lines if " " in line)


def compile_program(name: str, directory: Path, *words: str) -> Path:
    """One of the C programs beside this file, for this machine."""
    program = directory / name
    source = PROJECT / "tests/attacks/programs" / f"{name}.c"
    subprocess.run(["gcc", "-O1", "-w", *words, "-o", program, source], check=True, capture_output=True)
    return program


def _listing(top: Path) -> dict[str, tuple[int, int, int, str]]:
    """Type and mode, owner, and content of everything below a directory."""
    found = {}
    for path in sorted([top, *top.rglob("*")]):
        info = path.lstat()
        content = os.readlink(path) if path.is_symlink() else path.read_text() if path.is_file() else ""
        found[str(path)] = (info.st_mode, info.st_uid, info.st_gid, content)
    return found


def _machine() -> dict[str, str]:
    """What attacks on a machine change: the programs that run builds, users, names, settings."""
    found = {}
    for path in (os.path.realpath(sys.executable), "/etc/passwd", "/etc/shadow", "/bin/sh"):
        content = Path(path).read_bytes()
        # Users come and go with other tests; their first line is root's.
        kept = content if len(content) > 1 << 16 else content.split(b"\n", 1)[0]
        found[path] = hashlib.sha256(kept).hexdigest()
    for name in ("core_pattern", "hostname", "domainname", "modprobe"):
        path = Path(f"/proc/sys/kernel/{name}")
        found[name] = path.read_text() if path.exists() else ""
    for device in filter(os.path.exists, ("/dev/null", "/dev/zero", "/dev/ptmx", "/dev/console")):
        info = os.stat(device)
        found[device] = f"{info.st_mode:o} {info.st_rdev}"
    return found
