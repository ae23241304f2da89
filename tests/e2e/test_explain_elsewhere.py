"""Explanations in builds that take from caches elsewhere, where an empty machine has no former record of its own."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest

from tests.conftest import Pybuild
from tests.e2e.cachetools import Layout, file_entry, layer_of, machine, number_of
from tests.registries import Registry

DOCKERFILE = """\
FROM base AS tools
ARG VERSION=1
COPY src /src
RUN cat /src/main > /made; echo $VERSION
FROM base
COPY --from=tools /made /made
RUN cp /made /then
"""


@pytest.fixture(params=["local", "registry"])
def place(request: pytest.FixtureRequest, plain: Registry, tmp_path: Path) -> tuple[str, str]:
    """Where a cache is: as --cache-to and as --cache-from say it."""
    if request.param == "local":
        return f"type=local,dest={tmp_path}/cache", f"type=local,src={tmp_path}/cache"
    name = f"type=registry,ref={plain.name(tmp_path.name.replace('_', '-'))}"
    return name, name


@pytest.fixture
def cache(pybuild: Pybuild, based: list[str], tmp_path: Path) -> Layout:
    """A cache in a directory."""
    found = Layout(tmp_path / "cache")
    written(pybuild)
    pybuild.ok("build", "-q", *based, "--cache-to", f"type=local,dest={found.directory},mode=max", ".")
    return found


def written(pybuild: Pybuild) -> None:
    pybuild.write(Dockerfile=DOCKERFILE, src__main="one", src__other="two")


def said(pybuild: Pybuild, based: list[str], source: str, *more: str) -> list[str]:
    """What `explain` says of each instruction."""
    return pybuild.ok("explain", *based, "--cache-from", source, *more, ".").stdout.splitlines()


def test_an_empty_machine_is_told_what_changed(pybuild: Pybuild, based: list[str], place: tuple[str, str]) -> None:
    target, source = place
    written(pybuild)
    pybuild.ok("build", "-q", *based, "--cache-to", f"{target},mode=max", ".")
    other = machine(pybuild, "other")
    found = said(other, based, source)
    assert [line for line in found if f": from {source}" not in line] == ["hit: FROM base (Dockerfile:1)"]
    pybuild.write(src__main="three", src__new="new")
    changed = "COPY src /src (Dockerfile:3): src/main changed (content); src/new added"
    assert said(other, based, source)[1:3] == [
        "miss: COPY src /src (Dockerfile:3):",
        "    src/main changed (content)",
    ]
    done = other.ok("build", *based, "--cache-from", source, ".")
    assert f"first miss: {changed}" in done.stderr
    words = ["--build-arg", "VERSION=2"]
    pybuild.write(src__main="one")
    (pybuild.cwd / "src/new").unlink()
    found = said(machine(pybuild, "third"), based, source, *words)
    assert (
        found[2] == "miss: RUN cat /src/main > /made; echo $VERSION (Dockerfile:4): build arg VERSION was 1, is now 2"
    )


def test_nothing_is_fetched_or_written_down(pybuild: Pybuild, based: list[str], cache: Layout) -> None:
    other = machine(pybuild, "other")
    for layer in cache.config["layers"]:
        cache.path(layer["digest"]).unlink()
    for trust in ("full", "read-only", "verify"):
        source = f"type=local,src={cache.directory},trust={trust}"
        assert len(said(other, based, source)) == 5
    with sqlite3.connect(other.root / "index.db") as database:
        assert database.execute("SELECT count(*) FROM records").fetchone() == (0,)
        assert database.execute("SELECT count(*) FROM key_notes").fetchone() == (0,)


def test_what_was_borrowed_is_compared_with_later(pybuild: Pybuild, based: list[str], cache: Layout) -> None:
    other = machine(pybuild, "other")
    other.ok("build", "-q", "-t", "x", *based, "--cache-from", f"type=local,src={cache.directory}", ".")
    pybuild.write(Dockerfile=DOCKERFILE.replace("/then", "/now"))
    found = other.ok("explain", *based, ".").stdout.splitlines()
    assert found[-1] == "miss: RUN cp /made /now (Dockerfile:7): the instruction was RUN cp /made /then"


def test_found_by_content(pybuild: Pybuild, based: list[str], cache: Layout) -> None:
    """An input that has to be built comes out the same, and what follows is taken from the cache."""
    pybuild.write(src__other="three")
    source = f"type=local,src={cache.directory}"
    done = machine(pybuild, "other").ok(
        "build", "--explain", "--progress", "quiet", *based, "--cache-from", source, "."
    )
    found = done.stderr.splitlines()
    assert "miss: COPY src /src (Dockerfile:3): src/other changed (content)" in found
    assert f"hit: COPY --from=tools /made /made (Dockerfile:6): its inputs came out the same, from {source}" in found


def test_why_a_result_was_not_taken(pybuild: Pybuild, based: list[str], cache: Layout) -> None:
    source = f"type=local,src={cache.directory}"
    assert said(machine(pybuild, "one"), based, f"{source},trust=verify")[1].endswith(
        f"COPY src /src (Dockerfile:3): {source} has it, and is to be verified"
    )
    pybuild.write(Dockerfile=DOCKERFILE + "RUN --mount=type=secret,id=s cat /then\n")
    found = said(machine(pybuild, "two"), based, f"{source},trust=read-only")
    assert found[1].startswith(f"miss: COPY src /src (Dockerfile:3): {source} has it, but is not trusted")
    pybuild.write(Dockerfile=DOCKERFILE)
    cache.path(cache.config["layers"][number_of(cache, "cp /made")]["digest"]).unlink()
    done = machine(pybuild, "three").ok("build", "--explain", "-t", "x", *based, "--cache-from", source, ".")
    assert f"what {source} has could not be used" in done.stderr.partition("hit: FROM")[2]


def test_an_image_with_its_own_cache_names_the_instruction(pybuild: Pybuild, based: list[str], tmp_path: Path) -> None:
    """It has no room for lists of files."""
    written(pybuild)
    layout = tmp_path / "image"
    pybuild.ok("build", *based, "--cache-to", "type=inline", "-o", f"type=oci,tar=false,dest={layout}", ".")
    source = f"type=local,src={layout}"
    pybuild.write(Dockerfile=DOCKERFILE.replace("cp /made /then", "cp /made /thence"))
    assert said(machine(pybuild, "other"), based, source) == [
        "hit: FROM base (Dockerfile:1)",  # the steps of the other stage are not in it, and nobody needs them
        f"hit: COPY --from=tools /made /made (Dockerfile:6): from {source}",
        "miss: RUN cp /made /thence (Dockerfile:7): the instruction was RUN cp /made /then",
    ]


def test_lists_of_files_are_passed_on(pybuild: Pybuild, based: list[str], cache: Layout, tmp_path: Path) -> None:
    relay = machine(pybuild, "relay")
    second = Layout(tmp_path / "second")
    words = ["--cache-from", f"type=local,src={cache.directory}"]
    target = f"type=local,dest={second.directory},mode=max"
    relay.ok("build", "-o", "type=cacheonly", *based, *words, "--cache-to", target, ".")
    assert second.config["files"] == cache.config["files"] and len(second.config["files"]) == 2
    third = Layout(tmp_path / "third")
    cache.path(cache.config["files"][0]["digest"]).write_bytes(b"something else")
    relay.ok(
        "build",
        "-o",
        "type=cacheonly",
        *based,
        *words,
        "--cache-to",
        f"type=local,dest={third.directory},mode=max",
        ".",
    )
    assert third.config["files"] == cache.config["files"][1:]


LIES = {
    "no text": {"text": 5},
    "inputs": {"inputs": [{"text": []}]},
    "a terminal's commands": {"text": "RUN cp \x1b]0;owned\x07 /then"},
    "a deep value": {"args": json.loads("[" * 300 + "]" * 300)},
}


@pytest.mark.parametrize("lie", LIES)
def test_notes_that_lie_are_harmless(pybuild: Pybuild, based: list[str], cache: Layout, lie: str) -> None:
    def change(_manifest: object, config: dict[str, list[dict[str, dict[str, object]]]]) -> None:
        for record in config["records"]:
            record["note"].update(LIES[lie])

    cache.forge(change)
    pybuild.write(Dockerfile=DOCKERFILE.replace("/then", "/now"), src__main="four")
    source = f"type=local,src={cache.directory}"
    done = machine(pybuild, "other")("build", "--explain", *based, "--cache-from", source, ".")
    assert done.returncode == 0 and "\x1b" not in done.stderr
    assert "miss: COPY src /src (Dockerfile:3): " in done.stderr


def test_a_list_that_lies_is_not_believed(pybuild: Pybuild, based: list[str], cache: Layout) -> None:
    for item in cache.config["files"]:
        cache.path(item["digest"]).write_bytes(b"x" * item["size"])
    pybuild.write(src__main="three")
    found = said(machine(pybuild, "other"), based, f"type=local,src={cache.directory}")
    assert found[1] == "miss: COPY src /src (Dockerfile:3): files of src changed (which ones is not known any more)"


def test_what_is_borrowed_is_checked(pybuild: Pybuild, based: list[str], cache: Layout) -> None:
    """--cache-check makes it again, whether it was needed or not, and finds a forgery."""
    source = f"type=local,src={cache.directory}"
    words = ["build", *based, "--cache-check", "-o", "type=cacheonly", "--cache-from"]
    done = machine(pybuild, "other").ok(*words, source, ".")
    assert done.stderr.count(": the same again") == 4
    evil = layer_of(file_entry("then", b"evil"), content=b"evil")
    cache.replace_layer(number_of(cache, "cp /made"), evil.raw, **evil.claims)
    for trust in ("full", "read-only"):
        done = machine(pybuild, trust)(*words, f"{source},trust={trust}", ".")
        assert done.returncode == 1
        assert "RUN cp /made /then (Dockerfile:7): not what the cache has; then changed (content)" in done.stderr


def test_a_check_in_a_trust_domain_leaves_own_cache_mounts_alone(
    pybuild: Pybuild, based: list[str], cache: Layout
) -> None:
    step = "RUN --mount=type=cache,target=/c cp /made /c/made; ls /c > /seen\n"
    pybuild.write(Dockerfile=DOCKERFILE + step)
    other = machine(pybuild, "other")
    source = f"type=local,src={cache.directory},trust=read-only"
    for _ in range(2):  # the second finds the step
        other.ok("build", *based, "--cache-check", "-t", "x", "--cache-from", source, ".")
    ids = [
        json.loads(line)["ID"] for line in other.ok("cache", "mounts", "list", "--format", "json").stdout.splitlines()
    ]
    assert len(ids) == 1 and "trust domain" in ids[0]


def test_what_cannot_be_had_is_built_and_not_checked(pybuild: Pybuild, based: list[str], cache: Layout) -> None:
    for layer in cache.config["layers"]:
        cache.path(layer["digest"]).unlink()
    words = ["build", *based, "--cache-check", "-o", "type=cacheonly", "--cache-from"]
    done = machine(pybuild, "other").ok(*words, f"type=local,src={cache.directory}", ".")
    assert "cache check:" not in done.stderr and done.stderr.count("building it") >= 1
