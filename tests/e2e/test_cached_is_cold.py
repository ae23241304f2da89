"""What holds for every build: a cache is invisible but for the time, over random edits of Dockerfile and context.

$PYBUILD_PROPERTY_EXAMPLES multiplies the number of examples.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from builder.errors import BuildError
from tests.e2e.inprocess import Builder, image_config

FACTOR = int(os.environ.get("PYBUILD_PROPERTY_EXAMPLES", "1"))
INSTRUCTIONS = (
    "COPY {f} /w/{f}",
    "COPY {f} /w/same",
    "COPY --chmod=0{n}0 {f} /w/m",
    "COPY --chown={n}:app {f} /w/",
    "COPY d /w/d",
    "COPY d/* /w/",
    "COPY --exclude=*{n} d /w/e",
    "COPY --link {f} /w/link/{n}",
    "COPY --from=other /o /w/o",
    "COPY --from=named . /w/named",
    "ADD {f} /w/added",
    "RUN cat /w/same > /w/r{n} || echo none > /w/r{n}",
    "RUN rm -rf /w/d /w/{f}; mkdir -p /w && ls -R /w > /w/list",
    "RUN --mount=type=bind,target=/src cp -r /src/d /w/bound; mkdir -p /w",
    "RUN --mount=type=bind,from=other,source=/o,target=/o mkdir -p /w && cp /o/{f} /w/from-other || true",
    "RUN mkdir -p /w && echo $A $B > /w/args",
    "RUN --network=none mkdir -p /w && pwd > /w/pwd && id > /w/id",
    "ARG A={n}",
    "ENV B={n}",
    "WORKDIR /w/{n}",
    "USER {n}",
    "USER root",
    "LABEL l={n}",
    "# remark {n}",
)
FILES = ["f0", "f1", "d/f0", "d/x7", "named/f0"]
FIRST_LINES = ["FROM base AS other", "RUN mkdir /o", "COPY d /o/", "COPY f0 f1 /o/", "FROM base"]


class Source:
    """A Dockerfile and its context, edited at random."""

    def __init__(self, directory: Path, chance: random.Random) -> None:
        self.context = directory
        self._chance = chance
        self._clock = 1_600_000_000
        self.lines = [self._instruction() for _ in range(chance.randint(3, 7))]
        for name in FILES:
            self._write(name)
        self.save()

    def _instruction(self) -> str:
        return self._chance.choice(INSTRUCTIONS).format(
            f=self._chance.choice(["f0", "f1"]), n=self._chance.choice([5, 7])
        )

    def _write(self, name: str) -> None:
        path = self.context / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self._chance.choice(["one", "two", "six"]))

    def save(self) -> None:
        (self.context / "Dockerfile").write_text("\n".join([*FIRST_LINES, *self.lines]) + "\n")

    def edit(self) -> str:
        """Change something, or nothing that counts; returns what was done."""
        chance = self._chance
        what = chance.choice(["content", "content", "mode", "touch", "swap", "other", "insert", "delete", "change"])
        name, place = chance.choice(FILES), chance.randrange(len(self.lines))
        path = self.context / name
        if what == "content":
            self._write(name)
        elif what == "mode":
            path.chmod(chance.choice([0o600, 0o755, 0o644]))
        elif what == "touch":
            os.utime(path, (chance.randrange(10**9), chance.randrange(10**9)))
        elif what == "swap":
            other = self.context / chance.choice(FILES)
            first, second = path.read_bytes(), other.read_bytes()
            path.write_bytes(second)
            other.write_bytes(first)
        elif what == "other":
            place = chance.randrange(len(FILES))
            name = f"d/extra{place}"
            extra = self.context / name
            extra.unlink() if extra.exists() else extra.write_text("extra")
        elif what == "insert":
            self.lines.insert(place, self._instruction())
        elif what == "delete" and len(self.lines) > 1:
            del self.lines[place]
        else:
            self.lines[place] = self._instruction()
        self.save()
        return f"{what} {name} {place}"


@pytest.mark.parametrize("seed", range(8 * FACTOR))
def test_cached_build_is_a_cold_build(seed: int, base_layout: Path, tmp_path: Path) -> None:
    source = Source(tmp_path / "context", random.Random(seed))
    words = (
        "--build-context",
        f"base=oci-layout://{base_layout}",
        "--build-context",
        f"named={source.context}/named",
        ".",
    )
    warm = Builder(tmp_path / "warm", source.context)
    edits = []
    for number in range(6):
        cold = Builder(tmp_path / f"cold{number}", source.context)
        expected, found = _outcome(cold, words), _outcome(warm, words)
        assert found == expected, (edits, source.lines)
        again = _outcome(warm, words, ran=True)
        assert again in ((found[0], []), found), (edits, source.lines)
        edits.append(source.edit())


def test_step_found_by_content_has_the_layers_of_its_own_build(base_layout: Path, tmp_path: Path) -> None:
    builder = Builder(tmp_path / "store", tmp_path)
    words = ("--build-context", f"base=oci-layout://{base_layout}", ".")
    images = []
    for before in ("RUN true\n", ""):
        (tmp_path / "Dockerfile").write_text(f"FROM base\n{before}RUN echo late > /late\n")
        builder(*words, "-o", f"type=oci,tar=false,dest={tmp_path}/layout", SOURCE_DATE_EPOCH="1")
        images.append(image_config(tmp_path / "layout"))
    for image in images:
        made = [entry for entry in image["history"] if not entry.get("empty_layer")]
        assert len(made) == len(image["rootfs"]["diff_ids"])
    assert len(images[0]["rootfs"]["diff_ids"]) == len(images[1]["rootfs"]["diff_ids"]) + 1


def _outcome(builder: Builder, words: tuple[str, ...], *, ran: bool = False) -> tuple[str, list[str]]:
    """The image's id, and what ran if that is asked for; for a failure its message."""
    try:
        built = builder(*words, SOURCE_DATE_EPOCH="1")
    except BuildError as error:
        return f"failed: {error}", []
    return built.image_id, built.ran if ran else []
