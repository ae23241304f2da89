"""The language for places in documents."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.errors import BuildError, UsageError
from builder.image.path import follow, join, parse_path, show
from tests.builder.commandline import Shell
from tests.builder.image_factory import layer_tar, layout_files, make_image, write_tar

DOCUMENT = {
    "Id": "sha256:1",
    "Config": {"Env": ["A=1", "B=2"], "Labels": {"a.b": "c", "x y": 'q"'}, "Cmd": None},
    "Layers": [{"digest": "d1", "size": 1}, {"digest": "d2", "size": 2}],
    "ID": 5,
    "Empty": {},
}


def look(path: str) -> list[str]:
    return [show(value) for value in follow(DOCUMENT, parse_path(path))]


@pytest.mark.parametrize(
    ("path", "values"),
    [
        (".Config.Env[0]", ["A=1"]),
        (".config.env[-1]", ["B=2"]),
        (".layers[*].digest", ["d1", "d2"]),
        (".Layers[1]", ['{"digest": "d2", "size": 2}']),
        ('.Config.Labels["a.b"]', ["c"]),
        ('.Config.Labels["x y"]', ['q"']),
        (".Config.Labels[*]", ["c", 'q"']),
        ('.["Id"]', ["sha256:1"]),
        (".Id", ["sha256:1"]),
        (".Config.Cmd", ["null"]),
        (".Layers[*].size", ["1", "2"]),
        (".Empty[*].x", []),
    ],
)
def test_paths_lead_somewhere(path: str, values: list[str]) -> None:
    assert look(path) == values


def test_a_dot_is_everything() -> None:
    assert follow(DOCUMENT, parse_path(".")) == [DOCUMENT]


@pytest.mark.parametrize(
    ("path", "message", "hint"),
    [
        (".Confg.Env", ".Confg is not there", "did you mean .Config?"),
        (".Config.Envs[0]", ".Config.Envs is not there", "did you mean .Config.Env?"),
        (".Config.Labels.ab", ".Config.Labels.ab is not there", 'did you mean .Config.Labels["a.b"]?'),
        (".Config.Nothing", ".Config.Nothing is not there", ".Config has Env, Labels, Cmd"),
        (".Empty.a", ".Empty.a is not there", ".Empty is empty"),
        (".id", ".id is not there", "did you mean .ID?"),
        (".Config.Env[2]", ".Config.Env[2] is not there: .Config.Env has 2 items", None),
        (".Config.Env[-3]", ".Config.Env[-3] is not there: .Config.Env has 2 items", None),
        (".Config[0]", ".Config[0]: .Config is an object, expected an array", None),
        (".Config.Env.A", ".Config.Env.A: .Config.Env is an array, expected an object", None),
        (".Id[*]", ".Id[*]: .Id is a string, expected an array or an object", None),
        (".Layers[*].digets", ".Layers[*].digets is not there", "did you mean .Layers[*].digest?"),
    ],
)
def test_what_is_not_there_is_an_error(path: str, message: str, hint: str | None) -> None:
    with pytest.raises(BuildError) as caught:
        look(path)
    assert (str(caught.value), caught.value.hint) == (message, hint)


@pytest.mark.parametrize("path", ["", "Id", "[0]", ".a.", ".a b", ".a[", ".a[x]", ".a[1", "..a", '.a["b]', "{{.Id}}"])
def test_what_is_no_path_is_refused(path: str) -> None:
    with pytest.raises(UsageError):
        parse_path(path)


@given(st.dictionaries(st.text(min_size=1), st.integers(), min_size=1, max_size=5))
def test_every_member_has_a_path(document: dict[str, int]) -> None:
    for name, value in document.items():
        assert follow(document, parse_path(join(".", name))) == [value]


@given(st.text(alphabet='.[]*"ab01- {\\', max_size=12))
def test_any_text_is_a_path_or_refused(text: str) -> None:
    with contextlib.suppress(UsageError):
        parse_path(text)


def test_inspect_follows_a_path_in_every_image(shell: Shell) -> None:
    made = make_image(layer_tar({"a": "1"}), layer_tar({"b": "2"}), config={"Env": ["A=ü"], "Labels": {"k": "v"}})
    write_tar(shell.directory / "x.tar", dict(layout_files([made.named("app:1")], made.blobs)))
    shell("load", "-q", "-i", "x.tar")
    assert shell("inspect", "--format", ".config.env[0]", "app:1", "app:1") == "A=ü\nA=ü\n"
    assert shell("inspect", "-f", ".layers[*].digest", "app:1").splitlines() == made.layers
    assert shell("inspect", "-f", ".Config.Labels", "app:1") == '{"k": "v"}\n'
    with pytest.raises(BuildError, match=r"\.Config\.Envv is not there"):
        shell("inspect", "-f", ".Config.Envv", "app:1")
