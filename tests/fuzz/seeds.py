"""Inputs to start fuzzing from: the shared conformance cases, and a dictionary of the language's words."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from tests.shared import shared_dir

CASES_DIR = Path(__file__).resolve().parents[1] / "grammar" / "cases"
MAX_SEED_SIZE = 4096
DICTIONARY = """
FROM RUN COPY ADD ENV LABEL ARG CMD ENTRYPOINT SHELL EXPOSE VOLUME USER WORKDIR ONBUILD HEALTHCHECK STOPSIGNAL
MAINTAINER NONE AS --from= --mount= --chown= --link --platform= --interval=1s --exclude= --parents type=cache target=
sharing=locked <<EOF <<-'E' EOF \\\\ ` # escape= syntax= check=skip= ${a:-b} ${a#b} ${a//b/c} ${a:?b} ** !a [a-z] ./ ../
:5000/ @sha256: linux/arm64/v8 (10.0+win32k) 80-90/udp 1h30m 64m u=rwX,go=rX
"""


def write_seeds(target: str, directory: Path) -> None:
    """Fill `directory` with the seeds of `target`; what is there stays."""
    directory.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(_seeds(target)):
        if len(seed) <= MAX_SEED_SIZE:
            (directory / f"seed-{number}").write_bytes(seed)


def write_dictionary(path: Path) -> None:
    """The language's words in libFuzzer's format."""
    escaped = (word.replace("\\", "\\\\").replace('"', '\\"') for word in DICTIONARY.split())
    path.write_text("".join(f'"{word}"\n' for word in escaped))


def kept_cases(target: str) -> list[Path]:
    """Earlier findings of `target`, which the suite repeats."""
    return sorted((CASES_DIR / target).glob("*"))


def _seeds(target: str) -> Iterator[bytes]:
    yield from (path.read_bytes() for path in kept_cases(target))
    shared = shared_dir()
    if shared is None:
        return
    cases_dir = shared / "conformance" / "parse"
    match target:
        case "parser" | "format":
            yield from (path.read_bytes() for path in sorted(cases_dir.glob("**/files/*")))
        case "words":
            yield from (b"\0" + _encoded(case["word"]) for case in _table(cases_dir, "words") if _is_text(case["word"]))
        case "ignore":
            for case in _table(cases_dir, "dockerignore"):
                if _is_text(case["ignorefile"]):
                    yield (
                        _encoded(case["ignorefile"])
                        + b"\0a\na/b\nsrc/x.go\n"
                        + _encoded("\n".join(case.get("paths", [])))
                    )
        case "references":
            for name in ("refs", "platforms", "mounts", "ports", "values"):
                yield from (_encoded(case["input"]) for case in _table(cases_dir, name) if _is_text(case.get("input")))


def _table(cases_dir: Path, name: str) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads((cases_dir / f"{name}.json").read_text())["cases"]
    return found


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _encoded(text: object) -> bytes:
    return str(text).encode("utf-8", "surrogateescape")
