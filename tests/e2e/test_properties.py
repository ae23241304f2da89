"""What holds for every build: an image holds what its commands make in a plain directory.

$PYBUILD_PROPERTY_EXAMPLES multiplies the number of examples.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st

from tests.e2e import trees
from tests.e2e.inprocess import Builder
from tests.e2e.trees import Copy

FACTOR = int(os.environ.get("PYBUILD_PROPERTY_EXAMPLES", "1"))
CHECKS = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large]
NEW_NAMES = st.sampled_from(["new", "a", "b", "n w", "é", "c", "#1", "-x", "$HOME", "*"])


def examples(count: int) -> settings:
    """The same examples at every run, unless more are asked for."""
    return settings(
        max_examples=count * FACTOR,
        deadline=None,
        suppress_health_check=CHECKS,
        derandomize=FACTOR == 1,
        database=None,
        phases=[Phase.generate] if FACTOR == 1 else [Phase.generate, Phase.shrink],
    )


class Base(NamedTuple):
    """The base image: the words that name it, and its tree in a plain directory."""

    words: tuple[str, ...]
    root: Path


@pytest.fixture(scope="module")
def base(base_layout: Path, tmp_path_factory: pytest.TempPathFactory) -> Base:
    scratch = tmp_path_factory.mktemp("plain")
    words = ("--build-context", f"base=oci-layout://{base_layout}")
    (scratch / "Dockerfile").write_text("FROM base\n")
    Builder(scratch / "store", scratch)("-o", f"type=tar,dest={scratch}/base.tar", *words, ".")
    with tarfile.open(scratch / "base.tar") as tar:
        tar.extractall(scratch / "root", filter="fully_trusted")
    return Base(words, scratch / "root")


class World:
    """A Dockerfile that grows, and the plain directory in which everything that it says has been done, too."""

    def __init__(self, base: Base, directory: Path) -> None:
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir()
        self.context = directory / "context"
        self.context.mkdir()
        self.lines = ["FROM base AS s0"]
        self.roots = [directory / "root0"]
        self.linked = False
        self.moved = False
        self._base = base
        trees.clone(base.root, self.root)

    @property
    def root(self) -> Path:
        return self.roots[-1]

    def paths(self, *kinds: str) -> list[str]:
        """What there is below /w that a Dockerfile can name: f files with one name, h with several, d, l and p."""
        found = []
        for name in trees.in_directory(self.root):
            path = "/" + os.fsdecode(name)
            if path.startswith("/w/") and _kind(self.root / path[1:]) in kinds and _is_text(path):
                found.append(path)
        return sorted(found)

    def directories(self) -> list[str]:
        return ["/w", *self.paths("d")]

    def next_stage(self) -> None:
        """Go on with a new stage that has the tree of the one before."""
        self.roots.append(self.root.with_name(f"root{len(self.roots)}"))
        trees.clone(self._base.root, self.root)
        number = len(self.roots) - 1
        self.lines += [f"FROM base AS s{number}", f"COPY --from=s{number - 1} /w /w"]
        trees.copy_plainly(Copy(self.roots[-2] / "w", "/w", keeps_owners=True), self.root)

    def run(self, script: str) -> None:
        """One command in the plain directory, by the same shell that will run it in the image."""
        done = subprocess.run(["chroot", self.root, "/bin/sh", "-c", script], capture_output=True, check=False)
        assert done.returncode == 0, (script, done)

    def write(self) -> None:
        (self.context / "Dockerfile").write_text("\n".join(self.lines) + "\n")


def _kind(path: Path) -> str:
    if path.is_symlink():
        return "l"
    if path.is_dir():
        return "d"
    if path.is_fifo():
        return "p"
    return "f" if path.stat().st_nlink == 1 else "h"


def _is_text(path: str) -> bool:
    try:
        return bool(path.encode("utf-8"))
    except UnicodeEncodeError:
        return False


def escaped(text: str) -> str:
    """A path as a word of COPY's JSON form."""
    return re.sub(r"""([\\$'"])""", r"\\\1", text)


def _literally(path: str) -> str:
    """A pattern that only `path` matches: COPY takes an escaped bracket for no pattern at all."""
    if not re.search(r"[*?[]", path):
        return path
    return re.sub(r"[*?[\\]", lambda found: f"[{found[0]}]" if found[0] != "\\" else r"\\", path)


def command(draw: Callable[..., object], world: World) -> str | None:
    """One shell command that succeeds in the world as it is; None when there is nothing to apply it to."""

    def pick(*kinds: str) -> str | None:
        paths = world.paths(*kinds)
        return str(draw(st.sampled_from(paths))) if paths else None

    new = os.path.join(str(draw(st.sampled_from(world.directories()))), str(draw(NEW_NAMES)))
    verb = draw(st.sampled_from(["mv", "rm", "ln", "ln -s", "chmod", "chown", "mkdir", "append", "again", "turn"]))
    q = shlex.quote(new)
    is_new = not os.path.lexists(world.root / new[1:])
    if verb == "mkdir":
        return f"mkdir -p {q}/x/y" if is_new else None
    if verb == "ln -s":
        return f"ln -s {draw(st.sampled_from(['a', '../b', '/w', '/nowhere']))} {q}" if is_new else None
    path = pick("f") if verb == "append" else pick("f", "d") if verb in ("chmod", "chown") else pick(*"fhdlp")
    if verb == "ln":
        path = pick("f", "h")
    if path is None:
        return None
    p = shlex.quote(path)
    if verb == "mv":
        if not is_new or f"{new}/".startswith(f"{path}/"):
            return None
        world.moved = True
        return f"mv {p} {q}"
    if verb == "ln":
        return f"ln {p} {q}" if is_new else None
    return {
        "rm": f"rm -rf {p}",
        "chmod": f"chmod {draw(st.sampled_from(['700', '4711', '0', 'g+w,o-r']))} {p}",
        "chown": f"chown {draw(st.sampled_from(['7:8', 'app', '0:app']))} {p}",
        "append": f"echo more >> {p}",
        "again": f"rm -rf {p} && mkdir {p} && echo inside > {p}/a",
        "turn": f"rm -rf {p} && echo instead > {p}",
    }[str(verb)]


def copy_step(draw: Callable[..., object], world: World, tops: list[str]) -> None:
    """A COPY of a whole tree or of one file to a directory, a new name or a file, if there it can go."""
    top = str(draw(st.sampled_from(tops)))
    source = world.context / top
    files = sorted(p for p in source.rglob("*") if p.is_file() and not p.is_symlink() and _is_text(str(p)))
    if files and draw(st.booleans()):
        source = draw(st.sampled_from(files))  # type: ignore[assignment]
    inside = str(draw(st.sampled_from(world.directories() if (world.root / "w").is_dir() else ["/w"])))
    dest = str(draw(st.sampled_from([inside, f"{inside}/", f"{inside}/{draw(NEW_NAMES)}", f"{inside}/p/q/"])))
    chmod = draw(st.sampled_from([None, None, 0o640, 0o755]))
    chown = draw(st.sampled_from([None, None, (1000, 1000), (5, 0)]))
    copy = Copy(source, dest, chmod, chown)  # type: ignore[arg-type]
    if not _leads_only_to_directories(world.root, dest) or not trees.is_possible(copy, world.root):
        return
    flags = [f"--chmod={chmod:o}"] if chmod is not None else []
    flags += [f"--chown={chown[0]}:{chown[1]}"] if chown is not None else []
    pattern = _literally(str(source.relative_to(world.context)))
    world.lines.append(" ".join(["COPY", *flags, json.dumps([escaped(pattern), escaped(dest)])]))
    note(world.lines[-1])
    trees.copy_plainly(copy, world.root)


def _leads_only_to_directories(root: Path, dest: str) -> bool:
    """Whether every name of the path is a real directory or missing; the last may be a file."""
    path = root
    for name in dest.strip("/").split("/"):
        if os.path.lexists(path) and (path.is_symlink() or not path.is_dir()):
            return False
        path /= name
    return not path.is_symlink() and not (dest.endswith("/") and path.exists() and not path.is_dir())


def run_step(draw: Callable[..., object], world: World) -> None:
    """A RUN of a few commands."""
    if not (world.root / "w").is_dir():
        return
    script = []
    for _ in range(int(str(draw(st.integers(1, 3))))):
        words = command(draw, world)
        if words is not None:
            note(words)
            world.run(words)
            script.append(words)
    if script:
        world.lines.append("RUN " + json.dumps(["/bin/sh", "-c", " && ".join(script)]))


def _without_links(found: dict[bytes, trees.Entry], *, moved: bool) -> dict[bytes, trees.Entry]:
    """Without what an image cannot keep: hard links of what a lower layer has, times of directories that have nothing
    else new, and, when the shell has moved a directory by copying it, those of symbolic links."""
    links = {path: entry._replace(first=path) for path, entry in found.items()}
    links = {path: entry._replace(time=-1) if entry.kind == 0o040000 else entry for path, entry in links.items()}
    return {p: e._replace(time=-1) if moved and e.kind == 0o120000 else e for p, e in links.items()}


def assert_same(image: dict[bytes, trees.Entry], plain: dict[bytes, trees.Entry], world: World) -> None:
    assert _without_links(image, moved=world.moved) == _without_links(plain, moved=world.moved)
    for path, entry in image.items():
        assert plain[path].first == plain[entry.first].first, f"{path!r} and {entry.first!r} are one file in the image"
    if not any(line.startswith(("RUN", "FROM base AS s1")) for line in world.lines):
        assert {path: entry.first for path, entry in image.items()} == {p: entry.first for p, entry in plain.items()}


@examples(40)
@given(data=st.data())
def test_image_holds_what_the_commands_make_in_a_directory(data: st.DataObject, base: Base, tmp_path: Path) -> None:
    world = World(base, tmp_path / "world")
    tops = ["t0", "t1"]
    for top in tops:
        trees.make(world.context / top, data.draw(trees.trees()))
    for number in range(data.draw(st.integers(1, 7))):
        step = data.draw(st.sampled_from(["copy", "run", "run", "stage"])) if number else "copy"
        if step == "copy":
            copy_step(data.draw, world, tops)
        elif step == "run":
            run_step(data.draw, world)
        elif (world.root / "w").is_dir():
            world.next_stage()
    world.write()
    dest = tmp_path / "flat.tar"
    Builder(tmp_path / "store", world.context)("-o", f"type=tar,dest={dest}", *base.words, ".")
    assert_same(trees.in_tar(dest), trees.in_directory(world.root), world)
