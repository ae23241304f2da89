"""Git repositories as ADD names them, beyond what the shared table has."""

from __future__ import annotations

import pytest

from grammar.errors import DockerfileError
from grammar.gitref import GitRef, parse_git_ref


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("https://h/a.git#v1:sub/../dir/", GitRef("https://h/a.git", "v1", "dir")),
        ("https://h/a.git#:sub", GitRef("https://h/a.git", "", "sub")),
        ("git@h:a/b.git?subdir=x#main", GitRef("git@h:a/b.git", "main", "x")),
        ("ssh://git@h:22/a?submodules=false", GitRef("ssh://git@h:22/a", submodules=False)),
        ("https://h/a.git?keep-git-dir", GitRef("https://h/a.git", keep_git_dir=True)),
        (
            "http://h/a.git?commit=abc&tag=refs/tags/v1",
            GitRef("http://h/a.git", "refs/tags/v1", checksum="abc", is_unencrypted=True),
        ),
        ("https://h/a%20b.git", GitRef("https://h/a%20b.git")),
        ("https://h/ä.git", GitRef("https://h/%C3%A4.git")),
        ("github.com/a/b#c", GitRef("github.com/a/b", "c", is_like_local=True)),
    ],
)
def test_parsed(text: str, wanted: GitRef) -> None:
    assert parse_git_ref(text) == wanted


@pytest.mark.parametrize(
    "text",
    [
        "a.git",
        "dir/file",
        "../a.git",
        "https://h/a",
        "https://h/%zz.git",
        "https://h x/a.git",
        "ftp://h/a.git",
        "git@h",
        "h:a\nb",
    ],
)
def test_not_a_repository(text: str) -> None:
    assert parse_git_ref(text) is None


@pytest.mark.parametrize(
    "query",
    ["ref=a&ref=b", "ref=", "mtime=now", "submodules=perhaps", "branch=a&tag=b", "what=1", "ref=a&tag=b"],
)
def test_bad_queries(query: str) -> None:
    with pytest.raises(DockerfileError):
        parse_git_ref(f"https://h/a.git?{query}")


def test_a_fragment_and_a_query_must_agree() -> None:
    found = parse_git_ref("https://h/a.git?ref=v1#v1")
    assert found is not None
    assert found.ref == "v1"
    with pytest.raises(DockerfileError):
        parse_git_ref("https://h/a.git?ref=v1#v2")
