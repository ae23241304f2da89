"""`pybuild explain` and `build --explain`: what was found, what was not, and why."""

from __future__ import annotations

import json
import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Pybuild

DOCKERFILE = """\
FROM base AS build
ARG VERSION=1
ARG API_TOKEN=geheim
WORKDIR /app
COPY src /app/src
RUN echo $VERSION > /app/version
RUN cat /app/src/main.c > /app/out
FROM base
ENV MODE=fast
COPY --from=build /app/out /out
COPY --link src/util.c /util/
RUN echo done
"""


@pytest.fixture
def project(pybuild: Pybuild, based: list[str]) -> list[str]:
    """A project that was built once; the words that build it."""
    pybuild.write(Dockerfile=DOCKERFILE, src__main_c="one", src__util_c="two")
    for name in ("main", "util"):
        os.rename(pybuild.cwd / f"src/{name}_c", pybuild.cwd / f"src/{name}.c")
    pybuild.ok("build", "-q", *based, ".")
    return [*based, "."]


def explained(pybuild: Pybuild, words: list[str], *more: str) -> dict[str, tuple[str, list[str]]]:
    """By instruction: the status and what is said of it."""
    found: dict[str, tuple[str, list[str]]] = {}
    for line in pybuild.ok("explain", *more, *words).stdout.splitlines():
        if line.startswith("    "):
            found[list(found)[-1]][1].append(line.strip())
            continue
        status, _, rest = line.partition(": ")
        label, _, reason = rest.rstrip(":").partition("): ")
        found[label.partition(" (")[0]] = (status, [reason] if reason else [])
    return found


def statuses(found: dict[str, tuple[str, list[str]]]) -> list[str]:
    return [status for status, _ in found.values()]


def test_everything_is_found(pybuild: Pybuild, project: list[str]) -> None:
    found = explained(pybuild, project)
    assert statuses(found) == ["hit"] * 8
    assert next(iter(found)) == "FROM base"


def test_files(pybuild: Pybuild, project: list[str]) -> None:
    (pybuild.cwd / "src/main.c").write_text("three")
    (pybuild.cwd / "src/new.c").write_text("new")
    found = explained(pybuild, project)
    assert found["COPY src /app/src"] == ("miss", ["src/main.c changed (content)", "src/new.c added"])
    assert found["RUN echo $VERSION > /app/version"] == (
        "would run",
        ["its input COPY src /app/src (Dockerfile:5) would run"],
    )
    assert found["COPY --link src/util.c /util/"] == ("hit", [])
    assert found["RUN echo done"][1] == ["its input COPY --from=build /app/out /out (Dockerfile:10) would run"]
    done = pybuild.ok("build", *project)
    said = "first miss: COPY src /app/src (Dockerfile:5): src/main.c changed (content); src/new.c added"
    assert [line for line in done.stderr.splitlines() if "miss" in line] == [said]
    assert statuses(explained(pybuild, project)) == ["hit"] * 8
    assert "miss" not in pybuild.ok("build", *project).stderr


def test_a_file_that_does_not_matter_further_down(pybuild: Pybuild, project: list[str]) -> None:
    """What comes after a result that came out the same is found, and the report after the build says so."""
    (pybuild.cwd / "src/util.c").write_text("three")
    done = pybuild.ok("build", "--explain", "--progress", "quiet", *project)
    lines = done.stderr.splitlines()
    assert "miss: COPY src /app/src (Dockerfile:5): src/util.c changed (content)" in lines
    assert "hit: COPY --from=build /app/out /out (Dockerfile:10): its inputs came out the same" in lines
    assert "runs: RUN cat /app/src/main.c > /app/out (Dockerfile:7): its input RUN echo" in done.stderr


def test_arguments_and_secrets(pybuild: Pybuild, project: list[str]) -> None:
    words = ("--build-arg", "VERSION=2", "--build-arg", "API_TOKEN=verborgen")
    found = explained(pybuild, project, *words)
    assert found["COPY src /app/src"] == ("hit", [])
    assert found["RUN echo $VERSION > /app/version"] == (
        "miss",
        ["build arg VERSION was 1, is now 2", "build arg API_TOKEN changed"],
    )
    done = pybuild.ok("build", "--explain", *words, *project)
    assert "verborgen" not in done.stderr.partition("hit: FROM")[2]
    assert "geheim" not in done.stderr.partition("hit: FROM")[2]


def test_dockerfile_edits(pybuild: Pybuild, project: list[str]) -> None:
    (pybuild.cwd / "Dockerfile").write_text(DOCKERFILE.replace("ENV MODE=fast", "ENV MODE=slow"))
    assert explained(pybuild, project)["RUN echo done"] == ("miss", ["env MODE was fast, is now slow"])
    (pybuild.cwd / "Dockerfile").write_text(DOCKERFILE.replace("echo done", "echo done now"))
    assert explained(pybuild, project)["RUN echo done now"] == ("miss", ["the instruction was RUN echo done"])
    (pybuild.cwd / "Dockerfile").write_text(DOCKERFILE.replace("WORKDIR /app", "WORKDIR /app\nRUN new thing"))
    assert explained(pybuild, project)["RUN new thing"] == ("miss", ["no former record"])
    (pybuild.cwd / "Dockerfile").write_text("# remark\n" + DOCKERFILE + 'LABEL a=b\nCMD ["x"]\n')
    assert set(statuses(explained(pybuild, project))) == {"hit"}


def test_options(pybuild: Pybuild, project: list[str]) -> None:
    found = explained(pybuild, project, "--network", "none")
    assert found["RUN echo $VERSION > /app/version"] == ("miss", ["option --network was default, is now none"])
    found = explained(pybuild, project, "--cache-key-mode", "git")
    assert found["COPY src /app/src"] == ("miss", ["option --cache-key-mode was full, is now git"])
    assert explained(pybuild, project, "--no-cache")["WORKDIR /app"] == ("miss", ["--no-cache"])


def test_base_image(pybuild: Pybuild, project: list[str]) -> None:
    pybuild.write(other__Dockerfile="FROM base\nRUN echo more > /more\n")
    layout = pybuild.cwd.parent / "other-layout"
    pybuild.ok("build", *project[:-1], "-o", f"type=oci,tar=false,dest={layout}", "other")
    words = ["--build-context", f"base=oci-layout://{layout}", "."]
    status, reasons = explained(pybuild, words)["WORKDIR /app"]
    assert status == "miss"
    assert reasons[0].startswith("base image base: digest was sha256:")
    assert ", is now sha256:" in reasons[0]
    assert explained(pybuild, words)["COPY --link src/util.c /util/"][0] == "hit"


def test_input_that_was_built_alone_meanwhile(pybuild: Pybuild, project: list[str]) -> None:
    pybuild.ok("build", "-q", "--build-arg", "VERSION=2", "--target", "build", *project)
    pybuild.write(Dockerfile=DOCKERFILE.replace("/app/out /out", "/app/version /out"))
    found = explained(pybuild, project, "--build-arg", "VERSION=2")
    assert found["RUN cat /app/src/main.c > /app/out"][0] == "hit"
    assert found["COPY --from=build /app/version /out"][1] == ["the instruction was COPY --from=build /app/out /out"]


def test_files_of_another_stage(pybuild: Pybuild, project: list[str]) -> None:
    """After the build, a copy from another stage names the files in it that came out otherwise."""
    pybuild.ok("build", "-q", "--target", "build", *project)
    (pybuild.cwd / "src/main.c").write_text("three")
    pybuild.ok("build", "-q", "--target", "build", *project)
    found = explained(pybuild, project)
    assert found["RUN cat /app/src/main.c > /app/out"][0] == "hit"
    assert found["COPY --from=build /app/out /out"] == ("miss", ["app/out changed (content)"])


def test_first_build_says_so(pybuild: Pybuild, based: list[str]) -> None:
    pybuild.write(Dockerfile="FROM base\nRUN true\n")
    found = pybuild.ok("build", *based, ".")
    assert found.stderr.splitlines()[-1] == "first miss: RUN true (Dockerfile:2): no former record"
    pybuild.write(Dockerfile="FROM base\nRUN false || true\n")
    assert "miss" not in pybuild.ok("build", "-q", *based, ".").stderr
    pybuild.write(Dockerfile="FROM base\nRUN exit 0\n")
    lines = pybuild.ok("build", "--progress", "json", *based, ".").stderr.splitlines()
    events: list[dict[str, Any]] = [json.loads(line) for line in lines]
    (miss,) = [event for event in events if event["event"] == "miss"]
    assert (miss["instruction"], miss["lines"], miss["status"]) == ("RUN exit 0", [2, 2], "miss")


def test_json(pybuild: Pybuild, project: list[str]) -> None:
    (pybuild.cwd / "src/main.c").chmod(0o755)
    document = json.loads(pybuild.ok("explain", "--format", "json", *project).stdout)
    (miss,) = [each for each in document["instructions"] if each["status"] == "miss"]
    assert miss["instruction"] == "COPY src /app/src"
    assert (miss["file"], miss["lines"], miss["stage"]) == ("Dockerfile", [5, 5], "build")
    assert miss["differences"] == [
        {"kind": "file", "subject": "src/main.c", "was": None, "now": None, "details": ["mode"]}
    ]


def test_nothing_is_run_or_recorded(pybuild: Pybuild, project: list[str]) -> None:
    def counts() -> list[int]:
        with sqlite3.connect(pybuild.root / "index.db") as database:
            tables = ("records", "key_notes", "snapshots", "layers", "images")
            return [database.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in tables]

    before = counts()
    (pybuild.cwd / "src/main.c").write_text("three")
    explained(pybuild, project)
    assert counts() == before


def test_note_goes_with_its_record(pybuild: Pybuild, project: list[str]) -> None:
    with sqlite3.connect(pybuild.root / "index.db") as database:
        assert database.execute("SELECT count(*) FROM key_notes").fetchone()[0] > 5
        database.execute("DELETE FROM records")
        assert database.execute("SELECT count(*) FROM key_notes").fetchone()[0] == 0
    assert explained(pybuild, project)["WORKDIR /app"] == ("miss", ["no former record"])


def test_lost_layer(pybuild: Pybuild, project: list[str]) -> None:
    with sqlite3.connect(pybuild.root / "index.db") as database:
        database.execute("DELETE FROM snapshots WHERE chain_id IN (SELECT chain_id FROM records)")
    assert explained(pybuild, project)["WORKDIR /app"] == ("miss", ["its layer is not in the store any more"])


def test_context_that_is_not_there(pybuild: Pybuild, project: list[str]) -> None:
    done = pybuild("explain", *project[:-1], "missing")
    assert done.returncode == 1
    assert "cannot be read" in done.stderr


def test_two_checkouts_with_another_umask(pybuild: Pybuild, based: list[str], tmp_path: Path) -> None:
    """With --cache-key-mode git the second finds the first's layers, as they are; the executable bit still counts."""
    for name, modes in {"one": (0o644, 0o755, 0o755), "two": (0o664, 0o775, 0o700)}.items():
        directory = tmp_path / name
        (directory / "src").mkdir(parents=True)
        (directory / "Dockerfile").write_text("FROM base\nCOPY src /src\nRUN ls -l /src > /list\n")
        for path, mode in zip(("src/file", "src/run", "src"), modes, strict=True):
            if path != "src":
                (directory / path).write_text(path)
            (directory / path).chmod(mode)
    words = ["--cache-key-mode", "git", *based]
    first = pybuild.ok("build", *words, str(tmp_path / "one")).stdout
    done = pybuild.ok("build", *words, str(tmp_path / "two"))
    assert done.stdout == first
    assert "miss" not in done.stderr
    (tmp_path / "two/src/file").chmod(0o775)
    assert "src/file changed (mode)" in pybuild.ok("build", *words, str(tmp_path / "two")).stderr


def test_secret_in_the_key(pybuild: Pybuild, based: list[str], tmp_path: Path) -> None:
    pybuild.write(Dockerfile="FROM base\nRUN --mount=type=secret,id=s wc -c < /run/secrets/s > /size\n")
    hidden = tmp_path / "hidden"

    def ran(text: str, option: str) -> bool:
        hidden.write_text(text)
        return (
            "CACHED"
            not in pybuild.ok("build", *based, "--secret", f"id=s,src={hidden}{option}", ".").stderr.split("RUN")[1]
        )

    assert ran("first-secret", "")
    assert not ran("other-secret", "")
    assert ran("first-secret", ",cache=key")
    assert not ran("first-secret", ",cache=key")
    assert ran("other-secret", ",cache=key")
    assert not ran("first-secret", ",cache=key")
    hidden.write_text("third-secret")
    found = explained(pybuild, [*based, "--secret", f"id=s,src={hidden},cache=key", "."])
    assert list(found.values())[-1] == ("miss", ["secret s changed"])
    assert (pybuild.root / "mac.key").stat().st_mode & 0o777 == 0o600
    for path in pybuild.root.rglob("*"):
        for word in (b"first-secret", b"other-secret", b"third-secret"):
            assert not path.is_file() or word not in path.read_bytes(), path
