"""A Dockerfile and its context that are edited at random, as people do and as one would who wants a stale cache."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

FILES = (
    "COPY {f} /w/{f}",
    "COPY {f} /w/same",
    "COPY {f} f1 /w/$A/",
    "COPY --chmod=0{n}0 {f} /w/m",
    "COPY --chmod=u+x,g-w {f} /w/sym",
    "COPY --chown={n}:app {f} /w/",
    "COPY --chown={n} d /w/owned",
    "COPY d /w/d",
    "COPY d/ /w/",
    "COPY d/* /w/",
    "COPY d/sub /w/f0/",
    "COPY --exclude=*{n} --exclude=sub/c d /w/e",
    "COPY --parents d/sub/c {f} /w/p/",
    "COPY --parents ./d/./sub /w/p{n}/",
    "COPY --link {f} /w/link/{n}",
    "COPY --link --chown={n} d /w/linked",
    "COPY --link --chmod=64{n} {f} /l/",
    "COPY l /w/l",
    "COPY dl /w/dl",
    "COPY . /all",
    "COPY --from={stage} /o /w/o",
    "COPY --from={stage} /o/f{b} /w/one",
    "COPY --link --from={stage} /o/ /w/lo",
    "COPY --from=named . /w/named",
    "COPY --from=named x* /w/nx/",
    "ADD {f} /w/added",
    "COPY <<EOF /w/doc\ntext {n} $A\nEOF",
    'COPY <<"EOF" /w/doc\ntext {n} $A\nEOF',
    "ARG A={n}",
    "ENV A={n} B={n}",
    "ENV B={n} A={n}",
    "WORKDIR /w/{n}",
    "WORKDIR /w/$A",
    "USER {n}",
    "USER root",
    "LABEL l={n}",
    'CMD ["c{n}"]',
    "HEALTHCHECK --retries={n} CMD true",
    "ONBUILD COPY {f} /onbuild/{n}",
    "VOLUME /v{n}",
    "# remark {n}",
)
RUNS = (
    "RUN cat /w/same > /w/r{n} || mkdir -p /w",
    "RUN rm -rf /w/d /w/{f}; mkdir -p /w && ls -R /w > /w/list",
    "RUN --mount=type=bind,target=/src mkdir -p /w && cp -r /src/d /w/bound",
    "RUN --mount=type=bind,source=d/sub,target=/src mkdir -p /w && cp -r /src /w/sub",
    "RUN --mount=type=bind,from={stage},source=/o,target=/o mkdir -p /w && cp /o/{f} /w/from-{stage} || true",
    "RUN mkdir -p /w && echo $A $B > /w/args; env | sort > /w/env",
    "RUN --network=none mkdir -p /w && pwd > /w/pwd && id > /w/id || true",
    "RUN <<EOF\nmkdir -p /w\necho {n} > /w/script\nEOF",
    "RUN <<EOF\n#!/bin/sh\nmkdir -p /w; echo {n} $A > /w/script\nEOF",
)
PLACES = ("f0", "f1", "d/f0", "d/x7", "d/sub/c", "named/x1", "named/f0")
MOST_LINES = 6
BASES = ("base", "rebuilt", "other")


class Source:
    """The files, the Dockerfile's lines, and the words of the command line. `edit` changes one of them."""

    def __init__(self, context: Path, chance: random.Random, layouts: Mapping[str, Path], *, runs: bool) -> None:
        self.context = context
        self._chance = chance
        self._layouts = layouts
        self._templates: Sequence[str] = (*FILES, *RUNS, *RUNS) if runs else FILES
        self.base = "base"
        self.stage = "other"
        self.args: dict[str, str] = {}
        self.ignored = ["*.tmp", "Dockerfile"]
        for name in PLACES:
            self._write(name)
        (context / "l").symlink_to("f0")
        (context / "dl").symlink_to("d")
        self.lines = [self._instruction() for _ in range(chance.randint(2, 5))]
        self.save()

    @property
    def words(self) -> tuple[str, ...]:
        contexts = {"base": f"oci-layout://{self._layouts[self.base]}", "named": f"{self.context}/named"}
        words = [word for name, value in contexts.items() for word in ("--build-context", f"{name}={value}")]
        return (*words, *(f"--build-arg={name}={value}" for name, value in self.args.items()), ".")

    def save(self) -> None:
        head = [f"FROM base AS {self.stage}", "COPY d /o/", "COPY f0 f1 /o/", "FROM base"]
        lines = [line.replace("{stage}", self.stage) for line in self.lines]
        (self.context / "Dockerfile").write_text("\n".join([*head, *lines]) + "\n")
        (self.context / ".dockerignore").write_text("\n".join(self.ignored) + "\n")

    def edit(self) -> tuple[str, bool]:
        """Do one thing; returns what, and whether no step can depend on it."""
        edits: list[Callable[[], bool]] = [
            self.content,
            self.content,
            self.mode,
            self.touch,
            self.rewrite,
            self.swap,
            self.rename,
            self.rename_case,
            self.add_or_remove,
            self.turn,
            self.retarget,
            self.ignore,
            self.ignored_file,
            self.swap_base,
            self.rename_stage,
            self.argument,
            self.insert,
            self.change,
            self.change,
            self.delete,
            self.move,
            self.remark,
        ]
        chosen = self._chance.choice(edits)
        is_idle = chosen()
        self.save()
        return chosen.__name__, is_idle

    def _instruction(self) -> str:
        chance = self._chance
        filled = chance.choice(self._templates).replace("{stage}", "{{stage}}")
        return filled.format(f=chance.choice(["f0", "f1"]), n=chance.choice([5, 7]), b=chance.choice([0, 1]))

    def _write(self, name: str) -> None:
        path = self.context / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self._chance.choice(["one", "two", "six"]))

    def _pick(self) -> Path:
        files = sorted(path for path in self.context.rglob("*") if path.is_file() and not path.is_symlink())
        return self._chance.choice([path for path in files if path.name not in ("Dockerfile", ".dockerignore")])

    def content(self) -> bool:
        self._pick().write_text(self._chance.choice(["one", "two", "six", "sixty"]))
        return False

    def mode(self) -> bool:
        path = self._pick()
        (path if self._chance.random() < 0.8 else path.parent).chmod(self._chance.choice([0o700, 0o755, 0o744, 0o4755]))
        return False

    def touch(self) -> bool:
        path = self._pick()
        for each in (path, path.parent):
            os.utime(each, (self._chance.randrange(10**9), self._chance.randrange(10**9)))
        return True

    def rewrite(self) -> bool:
        """The same bytes in a new inode."""
        path = self._pick()
        is_linked = path.stat().st_nlink > 1
        copy = path.with_name("copy.tmp")
        shutil.copy2(path, copy)
        copy.replace(path)
        return not is_linked

    def swap(self) -> bool:
        first, second = self._pick(), self._pick()
        one, two = first.read_bytes(), second.read_bytes()
        first.write_bytes(two)
        second.write_bytes(one)
        return False

    def rename(self) -> bool:
        self._move(self._pick(), self._chance.choice(["f0", "f1", "x7", "x1", "moved"]))
        return False

    def rename_case(self) -> bool:
        path = self._pick()
        self._move(path, path.name.swapcase())
        return False

    def _move(self, path: Path, name: str) -> None:
        """Rename, and write again what the Dockerfile names."""
        target = path.with_name(name)
        if not target.is_dir():
            path.rename(target)
        for each in ("f0", "f1", "d/sub/c"):
            if not os.path.lexists(self.context / each):
                self._write(each)

    def add_or_remove(self) -> bool:
        extra = self.context / self._chance.choice(["d/extra", "extra", "d/sub/extra5", "named/x5"])
        extra.unlink() if extra.exists() else extra.write_text("one")
        return False

    def turn(self) -> bool:
        """A file becomes a directory, or that one a file again; a hard link or a symbolic link counts as a file."""
        path = self.context / self._chance.choice(["d/x7", "d/turned"])
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
            kind = self._chance.choice(["file", "link", "hard"])
            if kind == "link":
                path.symlink_to("f0")
            elif kind == "hard":
                os.link(self.context / "f0", path)
            else:
                path.write_text("one")
        else:
            path.unlink(missing_ok=True)
            path.mkdir()
            (path / "inside").write_text("one")
        return False

    def retarget(self) -> bool:
        name, targets = self._chance.choice([("l", ["f0", "f1", "d/f0"]), ("dl", ["d", "named", "d/sub"])])
        link = self.context / name
        link.unlink()
        link.symlink_to(self._chance.choice(targets))
        return False

    def ignore(self) -> bool:
        pattern = self._chance.choice(["d/x*", "!d/x7", "**/c", "extra", "named", "d/sub", "!d/sub/c", "[f]0x"])
        if pattern in self.ignored:
            self.ignored.remove(pattern)
        else:
            self.ignored.append(pattern)
        return False

    def ignored_file(self) -> bool:
        """`*.tmp` means the context's own directory only."""
        (self.context / "noise.tmp").write_text(str(self._chance.random()))
        return True

    def swap_base(self) -> bool:
        before, self.base = self.base, self._chance.choice(BASES)
        return before == self.base

    def rename_stage(self) -> bool:
        self.stage = self._chance.choice(["other", "another", "third"])
        return not any("from-{stage}" in line for line in self.lines)

    def argument(self) -> bool:
        name = self._chance.choice(["A", "UNUSED"])
        if name in self.args and self._chance.random() < 0.5:
            del self.args[name]
        else:
            self.args[name] = self._chance.choice(["5", "7", "8"])
        return name == "UNUSED"

    def insert(self) -> bool:
        if len(self.lines) > MOST_LINES:
            return self.delete()
        self.lines.insert(self._chance.randint(0, len(self.lines)), self._instruction())
        return False

    def change(self) -> bool:
        self.lines[self._chance.randrange(len(self.lines))] = self._instruction()
        return False

    def delete(self) -> bool:
        if len(self.lines) > 1:
            del self.lines[self._chance.randrange(len(self.lines))]
        return False

    def move(self) -> bool:
        line = self.lines.pop(self._chance.randrange(len(self.lines)))
        self.lines.insert(self._chance.randint(0, len(self.lines)), line)
        return False

    def remark(self) -> bool:
        at = self._chance.randint(0, len(self.lines))
        self.lines.insert(at, f"# {self._chance.random()}")
        if len(self.lines) > 8:
            self.lines = [line for line in self.lines if not line.startswith("# ")] or ["# nothing"]
        return True
