"""Fuzzes one language of grammar/, guided by coverage: `python -m tests.fuzz.run TARGET SECONDS [--corpus DIR]`.

It needs atheris (`pip install atheris`), which is no dependency of the project or of its suite: the suite only repeats
the findings kept in tests/grammar/cases/TARGET. A finding is written to the corpus directory as `crash-…`,
`timeout-…` or `oom-…`; once the defect is fixed, move it to the cases under a name that says what it was.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["grammar"]):
    from tests.fuzz.targets import TARGETS

from tests.fuzz.seeds import write_dictionary, write_seeds

MAX_INPUT_SIZE = 4096
SECONDS_PER_INPUT = 10
MEMORY_LIMIT_MB = 1024


def main(argv: list[str]) -> None:
    """Fuzz until the time is up or something is found; libFuzzer ends the process."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.run", description=__doc__.split("\n", 1)[0])
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("seconds", type=int)
    parser.add_argument("--corpus", type=Path, help="directory to keep inputs in (default: a temporary one)")
    options = parser.parse_args(argv)
    corpus_dir = options.corpus or Path(tempfile.mkdtemp(prefix=f"fuzz-{options.target}-"))
    write_seeds(options.target, corpus_dir)
    dictionary_path = corpus_dir.with_suffix(".dict")
    write_dictionary(dictionary_path)
    arguments = [
        "tests.fuzz.run",
        str(corpus_dir),
        f"-max_total_time={options.seconds}",
        f"-max_len={MAX_INPUT_SIZE}",
        f"-timeout={SECONDS_PER_INPUT}",
        f"-rss_limit_mb={MEMORY_LIMIT_MB}",
        f"-dict={dictionary_path}",
        f"-artifact_prefix={corpus_dir}/",
    ]
    atheris.Setup(arguments, TARGETS[options.target])
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1:])
