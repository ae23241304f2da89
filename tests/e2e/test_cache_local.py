"""--cache-to and --cache-from with a directory: an empty machine finds everything, and fetches what it needs."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from tests.conftest import Pybuild
from tests.e2e.cachetools import Layout, cpu_seconds, machine, messages, ran
from tests.registries import serving

DOCKERFILE = """\
FROM base AS tools
COPY f /f
RUN cat /f > /g; date +%s%N > /when
FROM base AS unused
RUN touch /unused
FROM base
COPY --from=tools /g /g
RUN cat /g /g > /h
COPY --link f /linked
WORKDIR /w
"""


@pytest.fixture
def cache(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "cache")


def words(based: list[str], *more: str) -> list[str]:
    return ["build", "--progress", "json", *based, *more, "."]


def test_another_machine_runs_nothing_and_makes_the_same_image(
    pybuild: Pybuild, based: list[str], cache: Layout
) -> None:
    pybuild.write(Dockerfile=DOCKERFILE, f="hello")
    made = pybuild.ok(*words(based, "-t", "x", "--cache-to", f"type=local,dest={cache.directory},mode=max"))
    other = machine(pybuild, "other")
    found = other.ok(*words(based, "-t", "x", "--cache-from", f"type=local,src={cache.directory}"))
    assert ran(found) == []
    assert found.stdout == made.stdout
    assert other.ok("run", "--rm", "x", "cat", "/h", "/linked").stdout == "hellohellohello"
    again = other.ok(*words(based, "-t", "x"))
    assert ran(again) == [] and again.stdout == made.stdout


def test_a_cache_is_an_ordinary_image_manifest(pybuild: Pybuild, based: list[str], cache: Layout) -> None:
    pybuild.write(Dockerfile=DOCKERFILE, f="hello")
    pybuild.ok(*words(based, "--cache-to", f"type=local,dest={cache.directory},mode=max,tag=main"))
    manifest = cache.manifest
    assert manifest["mediaType"] == "application/vnd.oci.image.manifest.v1+json"
    named = {layer["digest"] for layer in manifest["layers"]}
    assert {blob["digest"] for blob in (*cache.config["layers"], *cache.config["files"])} == named
    present = {f"sha256:{path.name}" for path in (cache.directory / "blobs/sha256").iterdir()}
    assert named < present and len(present) == len(named) + 2
    index = json.loads((cache.directory / "index.json").read_text())
    assert index["manifests"][0]["annotations"] == {"org.opencontainers.image.ref.name": "main"}


def test_only_what_is_needed_is_fetched(pybuild: Pybuild, based: list[str], cache: Layout) -> None:
    pybuild.write(Dockerfile=DOCKERFILE, f="hello")
    pybuild.ok(*words(based, "--cache-to", f"type=local,dest={cache.directory},mode=max"))
    source = f"type=local,src={cache.directory}"
    nothing = machine(pybuild, "nothing")
    done = nothing.ok(*words(based, "-o", "type=cacheonly", "--cache-from", source))
    assert ran(done) == [] and "importing layer" not in messages(done)
    image = machine(pybuild, "image").ok(*words(based, "-t", "x", "--cache-from", source))
    assert messages(image).count("importing layer") == 4  # g, h, linked, w: not what the other stage has
    pybuild.write(Dockerfile=DOCKERFILE.replace("cat /g /g", "cat /g"))
    changed = machine(pybuild, "changed").ok(*words(based, "-o", "type=cacheonly", "--cache-from", source))
    assert ran(changed) == ["RUN cat /g > /h", "COPY --link f /linked", "WORKDIR /w"]
    assert messages(changed).count("importing layer") == 2  # /g, which is read, and /linked, which is stacked on it


def test_mode_min_has_the_layers_of_the_image_only(pybuild: Pybuild, based: list[str], cache: Layout) -> None:
    pybuild.write(Dockerfile=DOCKERFILE, f="hello")
    pybuild.ok(*words(based, "--cache-to", f"type=local,dest={cache.directory}"))
    assert len(cache.config["layers"]) == 4
    other = machine(pybuild, "other")
    assert ran(other.ok(*words(based, "-t", "x", "--cache-from", f"type=local,src={cache.directory}"))) == []
    pybuild.write(f="changed")
    done = machine(pybuild, "third").ok(*words(based, "-t", "x", "--cache-from", f"type=local,src={cache.directory}"))
    assert [name for name in ran(done) if name.startswith("RUN")] == [
        "RUN cat /f > /g; date +%s%N > /when",
        "RUN cat /g /g > /h",
    ]


def test_an_input_rebuilt_to_the_same_content_is_found_by_content(
    pybuild: Pybuild, based: list[str], cache: Layout
) -> None:
    text = "FROM base AS a\nRUN echo x > /x\nFROM base\nCOPY --from=a /x /x\nRUN cp /x /y\n"
    pybuild.write(Dockerfile=text)
    pybuild.ok(*words(based, "--cache-to", f"type=local,dest={cache.directory},mode=max"))
    pybuild.write(Dockerfile=text.replace("echo x > /x", "echo x  > /x"))
    done = machine(pybuild, "other").ok(*words(based, "-t", "x", "--cache-from", f"type=local,src={cache.directory}"))
    assert [name for name in ran(done) if name] == ["RUN echo x  > /x"]


def test_a_layer_that_is_gone_is_built(pybuild: Pybuild, based: list[str], cache: Layout) -> None:
    pybuild.write(Dockerfile=DOCKERFILE, f="hello")
    pybuild.ok(*words(based, "--cache-to", f"type=local,dest={cache.directory},mode=max"))
    for layer in cache.config["layers"]:
        cache.path(layer["digest"]).unlink()
    other = machine(pybuild, "other")
    done = other.ok(*words(based, "-t", "x", "--cache-from", f"type=local,src={cache.directory}"))
    assert [name for name in ran(done) if name.startswith("RUN")] == [
        "RUN cat /f > /g; date +%s%N > /when",
        "RUN cat /g /g > /h",
    ]
    assert other.ok("run", "--rm", "x", "cat", "/h", "/linked").stdout == "hellohellohello"
    assert ran(other.ok(*words(based, "-t", "x"))) == []


def test_what_follows_a_step_that_was_built_to_something_else_is_built_too(
    pybuild: Pybuild, based: list[str], cache: Layout
) -> None:
    text = "FROM base\nRUN cat /proc/sys/kernel/random/uuid > /when\nRUN cp /when /then\nRUN cp /then /last\n"
    pybuild.write(Dockerfile=text)
    pybuild.ok(*words(based, "--cache-to", f"type=local,dest={cache.directory},mode=max"))
    first = min(cache.config["records"], key=lambda record: record["created_ns"])
    cache.path(cache.config["layers"][first["layer"]]["digest"]).unlink()
    other = machine(pybuild, "other")
    done = other.ok(*words(based, "-t", "x", "--cache-from", f"type=local,src={cache.directory}"))
    assert len(ran(done)) == 3
    when, then, last = other.ok("run", "--rm", "x", "cat", "/when", "/then", "/last").stdout.split()
    assert when == then == last


def test_exporting_again_changes_nothing(pybuild: Pybuild, based: list[str], cache: Layout) -> None:
    pybuild.write(Dockerfile=DOCKERFILE, f="hello")
    target = f"type=local,dest={cache.directory},mode=max"
    pybuild.ok(*words(based, "--cache-to", target))
    before = {path: path.stat().st_mtime_ns for path in cache.directory.rglob("*")}
    done = pybuild.ok(*words(based, "--cache-to", target))
    assert "is up to date" in messages(done)
    assert {path: path.stat().st_mtime_ns for path in cache.directory.rglob("*")} == before


def test_what_was_borrowed_is_passed_on(pybuild: Pybuild, based: list[str], cache: Layout, tmp_path: Path) -> None:
    pybuild.write(Dockerfile=DOCKERFILE, f="hello")
    pybuild.ok(*words(based, "--cache-to", f"type=local,dest={cache.directory},mode=max"))
    source, copy = f"type=local,src={cache.directory}", Layout(tmp_path / "copy")
    relay = machine(pybuild, "relay")
    relay.ok(
        *words(based, "-o", "type=cacheonly", "--cache-from", source),
        "--cache-to",
        f"type=local,dest={copy.directory},mode=max",
    )
    assert [layer["diff_id"] for layer in copy.config["layers"]] == [x["diff_id"] for x in cache.config["layers"]]
    shutil.rmtree(cache.directory)
    other = machine(pybuild, "other")
    assert ran(other.ok(*words(based, "-t", "x", "--cache-from", f"type=local,src={copy.directory}"))) == []


def test_what_cannot_be_passed_on_is_left_out(
    pybuild: Pybuild, based: list[str], cache: Layout, tmp_path: Path
) -> None:
    pybuild.write(Dockerfile=DOCKERFILE, f="hello")
    pybuild.ok(*words(based, "--cache-to", f"type=local,dest={cache.directory},mode=max"))
    cache.path(cache.config["layers"][0]["digest"]).unlink()
    source, copy = f"type=local,src={cache.directory}", Layout(tmp_path / "copy")
    done = machine(pybuild, "relay").ok(
        *words(based, "-o", "type=cacheonly", "--cache-from", source),
        *("--cache-to", f"type=local,dest={copy.directory},mode=max"),
    )
    assert "is left out" in messages(done)
    kept = {layer["diff_id"] for layer in cache.config["layers"][1:]}
    assert {layer["diff_id"] for layer in copy.config["layers"]} == kept


def test_compression_is_as_wanted(pybuild: Pybuild, based: list[str], cache: Layout) -> None:
    pybuild.write(Dockerfile=DOCKERFILE, f="hello")
    pybuild.ok(*words(based, "--cache-to", f"type=local,dest={cache.directory},compression=zstd,compression-level=9"))
    assert {layer["media_type"].rpartition("+")[2] for layer in cache.config["layers"]} == {"zstd"}
    forced = f"type=local,dest={cache.directory},compression=uncompressed,force-compression=true,reset=true"
    pybuild.ok(*words(based, "--cache-to", forced))
    assert {layer["media_type"].rpartition(".")[2] for layer in cache.config["layers"]} == {"tar"}
    named = {layer["digest"][7:] for layer in cache.manifest["layers"]}
    assert len({path.name for path in (cache.directory / "blobs/sha256").iterdir()} - named) == 2  # reset=true
    other = machine(pybuild, "other")
    assert ran(other.ok(*words(based, "-t", "x", "--cache-from", f"type=local,src={cache.directory}"))) == []


def test_tags_are_caches_of_their_own(pybuild: Pybuild, based: list[str], cache: Layout) -> None:
    for tag in ("one", "two"):
        pybuild.write(Dockerfile=f"FROM base\nRUN echo {tag} > /{tag}\n")
        pybuild.ok(*words(based, "--cache-to", f"type=local,dest={cache.directory},tag={tag}"))
    other = machine(pybuild, "other")
    source = f"type=local,src={cache.directory}"
    assert ran(other.ok(*words(based, "-o", "type=cacheonly", "--cache-from", f"{source},tag=two"))) == []
    done = machine(pybuild, "third").ok(*words(based, "-o", "type=cacheonly", "--cache-from", f"{source},tag=one"))
    assert len(ran(done)) == 1
    digest = json.loads((cache.directory / "index.json").read_text())["manifests"][1]["digest"]
    done = machine(pybuild, "fourth").ok(
        *words(based, "-o", "type=cacheonly", "--cache-from", f"{source},digest={digest}")
    )
    assert ran(done) == []


def test_a_cache_that_is_not_there_stops_nothing(pybuild: Pybuild, based: list[str], tmp_path: Path) -> None:
    pybuild.write(Dockerfile="FROM base\nRUN true\n")
    done = pybuild.ok(*words(based, "--cache-from", f"type=local,src={tmp_path}/nowhere"))
    assert "has no cache yet" in messages(done)


def test_errors_of_an_export_count_unless_they_are_to_be_ignored(
    pybuild: Pybuild, based: list[str], tmp_path: Path
) -> None:
    pybuild.write(Dockerfile="FROM base\nRUN true\n")
    (tmp_path / "file").write_text("in the way")
    target = f"type=local,dest={tmp_path}/file"
    done = pybuild(*words(based, "--cache-to", target))
    assert done.returncode == 1 and "exporting cache: type=local" in done.stderr
    done = pybuild.ok(*words(based, "--cache-to", f"{target},ignore-error=true"))
    assert "exporting cache" in messages(done) and done.stdout.startswith("sha256:")


def test_a_failed_build_publishes_nothing(pybuild: Pybuild, based: list[str], cache: Layout) -> None:
    pybuild.write(Dockerfile="FROM base\nRUN true\nRUN false\n")
    assert pybuild(*words(based, "--cache-to", f"type=local,dest={cache.directory},mode=max")).returncode == 1
    assert not (cache.directory / "index.json").exists()


def test_no_cache_runs_everything(pybuild: Pybuild, based: list[str], cache: Layout) -> None:
    pybuild.write(Dockerfile=DOCKERFILE, f="hello")
    pybuild.ok(*words(based, "--cache-to", f"type=local,dest={cache.directory},mode=max"))
    source = f"type=local,src={cache.directory}"
    done = machine(pybuild, "other").ok(*words(based, "--no-cache", "-o", "type=cacheonly", "--cache-from", source))
    assert len([name for name in ran(done) if name.startswith("RUN")]) == 2


def test_archives_and_trees_of_borrowed_results(
    pybuild: Pybuild, based: list[str], cache: Layout, tmp_path: Path
) -> None:
    pybuild.write(Dockerfile=DOCKERFILE, f="hello")
    epoch = {"SOURCE_DATE_EPOCH": "1700000000"}
    one, two = tmp_path / "one.tar", tmp_path / "two.tar"
    target = f"type=local,dest={cache.directory},mode=max"
    pybuild.ok(*words(based, "-o", f"type=oci,dest={one}", "--cache-to", target), env=epoch)
    other = machine(pybuild, "other")
    tree = tmp_path / "tree"
    outputs = ["-o", f"type=oci,dest={two}", "-o", f"type=local,dest={tree}"]
    done = other.ok(*words(based, *outputs, "--cache-from", f"type=local,src={cache.directory}"), env=epoch)
    assert ran(done) == []
    assert one.read_bytes() == two.read_bytes()
    assert (tree / "h").read_text() == "hellohello"


def test_fifty_cached_layers_are_exported_in_no_time(pybuild: Pybuild, based: list[str], cache: Layout) -> None:
    pybuild.write(Dockerfile="FROM base\n" + "".join(f"RUN echo {n} > /{n}\n" for n in range(50)))
    target = f"type=local,dest={cache.directory},mode=max"
    pybuild.ok(*words(based, "--cache-to", target))
    plain, _ = cpu_seconds(lambda: pybuild.ok(*words(based, "-o", "type=cacheonly")))
    exporting, done = cpu_seconds(lambda: pybuild.ok(*words(based, "-o", "type=cacheonly", "--cache-to", target)))
    assert exporting - plain < 0.7
    assert "is up to date" in messages(done)


def test_layers_are_sent_while_later_steps_run(
    pybuild: Pybuild, based: list[str], cache: Layout, tmp_path: Path
) -> None:
    go = tmp_path / "context/go"
    with serving(_Waiting.over(go)) as port:
        target = f"type=local,dest={cache.directory},mode=max"
        command = pybuild.argv(*words(based, "--allow", "network.host", "--cache-to", target))
        pybuild.write(
            Dockerfile="FROM base\nRUN echo x > /x\n"
            f"RUN --network=host wget -q -O /y http://127.0.0.1:{port}/\nRUN cat /y > /z\n"
        )
        process = subprocess.Popen(
            command, cwd=pybuild.cwd, env=pybuild.environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        deadline = time.monotonic() + 60
        blobs = cache.directory / "blobs/sha256"
        while not (blobs.is_dir() and any(len(path.name) == 64 for path in blobs.iterdir())):
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.05)
        assert not (cache.directory / "index.json").exists()
        go.touch()
        _, said = process.communicate(timeout=60)
        assert process.returncode == 0, said
    assert len(cache.config["layers"]) == 3


class _Waiting(BaseHTTPRequestHandler):
    """Answers when a file is there."""

    go: Path

    @classmethod
    def over(cls, go: Path) -> type[BaseHTTPRequestHandler]:
        return type("Waiting", (cls,), {"go": go})

    def do_GET(self) -> None:
        deadline = time.monotonic() + 60
        while not self.go.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"y\n")

    def log_message(self, *_: object) -> None:
        pass


def test_several_builds_import_at_once(pybuild: Pybuild, based: list[str], cache: Layout) -> None:
    pybuild.write(Dockerfile=DOCKERFILE, f="hello")
    pybuild.ok(*words(based, "--cache-to", f"type=local,dest={cache.directory},mode=max"))
    other = machine(pybuild, "other")
    processes = [
        subprocess.Popen(
            other.argv(*words(based, "-t", f"x{n}", "--cache-from", f"type=local,src={cache.directory}")),
            cwd=other.cwd,
            env=other.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for n in range(4)
    ]
    outputs = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, outputs
    assert len({stdout for stdout, _ in outputs}) == 1
    assert other.ok("store", "check").returncode == 0


def test_killed_imports_leave_a_right_store(pybuild: Pybuild, based: list[str], cache: Layout) -> None:
    pybuild.write(Dockerfile=DOCKERFILE, f="hello")
    made = pybuild.ok(*words(based, "-t", "x", "--cache-to", f"type=local,dest={cache.directory},mode=max"))
    other, chance = machine(pybuild, "other"), random.Random(1)
    importing = words(based, "-t", "x", "--cache-from", f"type=local,src={cache.directory}")
    for _ in range(12):
        process = subprocess.Popen(
            other.argv(*importing),
            cwd=other.cwd,
            env=other.environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(0.1 + chance.random() * 0.8)
        process.kill()
        process.wait()
    done = other.ok(*importing)
    assert done.stdout == made.stdout and ran(done) == []
    assert other.ok("store", "check").returncode == 0
    assert other.ok("run", "--rm", "x", "cat", "/h").stdout == "hellohello"
