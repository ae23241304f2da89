"""The process that an image's config and the command line describe together."""

from __future__ import annotations

from typing import Any

import pytest

from builder.errors import BuildError, UsageError
from builder.runner.options import RunOptions
from builder.runner.process import DEFAULT_PATH, process_spec

IMAGE: dict[str, Any] = {
    "Entrypoint": ["/entry", "e"],
    "Cmd": ["c"],
    "Env": ["PATH=/bin", "A=image", "B=image"],
    "User": "daemon",
    "WorkingDir": "/srv",
}


@pytest.mark.parametrize(
    ("entrypoint", "args", "argv"),
    [
        (None, (), ("/entry", "e", "c")),
        (None, ("x", "y"), ("/entry", "e", "x", "y")),
        ("/other", (), ("/other",)),
        ("/other", ("x",), ("/other", "x")),
        ("", ("x",), ("x",)),
    ],
)
def test_arguments_replace_cmd_and_an_entrypoint_drops_it(
    entrypoint: str | None, args: tuple[str, ...], argv: tuple[str, ...]
) -> None:
    spec = process_spec(IMAGE, RunOptions(args, entrypoint), hostname="h")
    assert spec.argv == argv


@pytest.mark.parametrize(("config", "entrypoint"), [({}, None), (IMAGE, ""), ({"Cmd": None, "Entrypoint": None}, None)])
def test_nothing_to_run_is_an_error(config: dict[str, Any], entrypoint: str | None) -> None:
    with pytest.raises(BuildError, match="no command"):
        process_spec(config, RunOptions(entrypoint=entrypoint), hostname="h")


def test_variables_of_the_command_line_come_before_the_image() -> None:
    options = RunOptions(env=(("B", "mine"), ("C", "1"), ("C", "2")))
    spec = process_spec(IMAGE, options, hostname="h")
    assert spec.env == ("PATH=/bin", "HOSTNAME=h", "B=mine", "C=2", "A=image")


def test_a_variable_without_value_takes_the_image_s_away() -> None:
    spec = process_spec(IMAGE, RunOptions(env=(("A", None), ("Z", None))), hostname="h")
    assert spec.env == ("PATH=/bin", "HOSTNAME=h", "B=image")


def test_defaults_where_the_image_says_nothing() -> None:
    spec = process_spec({"Cmd": ["c"]}, RunOptions(), hostname="h")
    assert (spec.env, spec.cwd, spec.user, spec.hostname) == ((f"PATH={DEFAULT_PATH}", "HOSTNAME=h"), "/", "", "h")
    assert (spec.network, spec.terminal, spec.read_only_root, spec.shm_size) == ("host", False, False, 64 << 20)


def test_a_terminal_sets_term() -> None:
    spec = process_spec({"Cmd": ["c"]}, RunOptions(has_terminal=True), hostname="h")
    assert "TERM=xterm" in spec.env
    assert spec.terminal


def test_options_win_over_the_image() -> None:
    options = RunOptions(
        user="5:6",
        workdir="/w/../x",
        hostname="name",
        network="none",
        is_read_only=True,
        shm_size=1,
        extra_hosts=("a:::1",),
    )
    spec = process_spec(IMAGE, options, hostname="h")
    assert (spec.user, spec.cwd, spec.hostname, spec.network) == ("5:6", "/x", "name", "none")
    assert (spec.read_only_root, spec.shm_size, spec.extra_hosts) == (True, 1, ("a:::1",))
    assert "HOSTNAME=name" in spec.env


def test_the_image_s_user_and_directory_count_otherwise() -> None:
    spec = process_spec(IMAGE, RunOptions(), hostname="h")
    assert (spec.user, spec.cwd) == ("daemon", "/srv")


def test_a_relative_working_directory_is_refused() -> None:
    with pytest.raises(UsageError, match="not an absolute path"):
        process_spec(IMAGE, RunOptions(workdir="w"), hostname="h")
