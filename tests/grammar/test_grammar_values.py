from __future__ import annotations

import pytest

from grammar.errors import DockerfileError
from grammar.mount_flag import MountFlag, parse_device, parse_mount
from grammar.platforms import Platform, best_first, matches, normalize, parse_platform
from grammar.ports import split_port
from grammar.reference import parse_any_reference, parse_reference
from grammar.values import parse_chmod, parse_duration, parse_size
from grammar.words import Lexer

HOST = Platform("linux", "amd64")
SHA256 = "sha256:" + "0123456789abcdef" * 4


def test_durations() -> None:
    assert [parse_duration(text) for text in ("0", "1h1m1s", "1.5s", "-2us", ".5ms", "1.0000000001s")] == [
        0,
        3661 * 10**9,
        1_500_000_000,
        -2000,
        500_000,
        10**9,
    ]
    for text in ("", "1", "1d", "s", ".s", "1s2", "9223372036854775808ns", "1 s"):
        with pytest.raises(DockerfileError):
            parse_duration(text)


def test_sizes() -> None:
    assert [parse_size(text) for text in ("1", "1k", "1.5KiB", "2 gb", "1e3")] == [1, 1024, 1536, 2 << 30, 1000]
    assert parse_size("1m", kilo=1000) == 10**6
    for text in ("", "k", "1i", "1kk", "-1", "1  k", "0x10", "1_0"):
        with pytest.raises(DockerfileError):
            parse_size(text)


def test_chmod_is_octal_or_symbolic() -> None:
    assert [parse_chmod(text) for text in ("755", "07777", "u=rwX,go=", "+t")] == [0o755, 0o7777, "u=rwX,go=", "+t"]
    for text in ("8", "10000", "0o755", "+755", "u", "z+x", "u+x,", ""):
        with pytest.raises(DockerfileError):
            parse_chmod(text)


def test_mounts_are_read_with_their_variables() -> None:
    env = {"T": "cache", "ID": "a b"}
    mount = parse_mount("type=$T,Target=/x,id=$ID,uid=10,sharing=locked", lambda text: Lexer().process_word(text, env))
    assert mount == MountFlag(type="cache", target="/x", id="a b", uid=10, sharing="locked")
    assert parse_mount('type=tmpfs,"target=/a,b",size=1k', str).size == 1024
    assert parse_mount("target=/x", str).read_only
    assert not parse_mount("target=/x,rw", str).read_only
    assert parse_mount("bogus=$X,from=base", None).from_ == "base"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "type=nope",
        "required,type=secret",
        "size=1k",
        "nope=1",
        "type=secret",
        "type=secret,id=a,source=b",
        "uid=0,target=/x",
        "type=ssh,sharing=shared",
        "ro=maybe",
        'target="/a"',
        'a"b',
        "target",
        "type=cache,mode=8",
    ],
)
def test_mounts_that_are_refused(text: str) -> None:
    with pytest.raises(DockerfileError):
        parse_mount(text, str)


def test_devices() -> None:
    assert parse_device("vendor.com/gpu=all,required") == ("vendor.com/gpu=all", True)
    assert parse_device("name=x,required=false") == ("x", False)
    for text in ("", "a,b", "name=a,name=b", "a,required=x"):
        with pytest.raises(DockerfileError):
            parse_device(text)


def test_ports() -> None:
    words = ["80", "+53/UDP", "8000-8001/tcp", "127.0.0.1:8080:80", "[::1]::81", "1-9:5"]
    found = [split_port(word).ports() for word in words]
    assert found == [["80/tcp"], ["53/udp"], ["8000/tcp", "8001/tcp"], ["80/tcp"], ["81/tcp"], ["5/tcp"]]
    for word in ("", "/tcp", "65536", "-1", "80/icmp", "9-8", "1.2.3:80:80", "1-2:3-5", "\u0663"):
        with pytest.raises(DockerfileError):
            split_port(word).ports()


@pytest.mark.parametrize(
    ("text", "whole", "familiar", "pinned"),
    [
        ("alpine", "docker.io/library/alpine", "alpine", "docker.io/library/alpine:latest"),
        ("a/b:1", "docker.io/a/b:1", "a/b:1", "docker.io/a/b:1"),
        ("index.docker.io/a", "docker.io/library/a", "a", "docker.io/library/a:latest"),
        ("localhost:5000", "docker.io/library/localhost:5000", "localhost:5000", "docker.io/library/localhost:5000"),
        ("localhost/a", "localhost/a", "localhost/a", "localhost/a:latest"),
        ("Foo/a", "Foo/a", "Foo/a", "Foo/a:latest"),
        ("[::1]:5000/a", "[::1]:5000/a", "[::1]:5000/a", "[::1]:5000/a:latest"),
        (f"a:1@{SHA256}", f"docker.io/library/a:1@{SHA256}", f"a:1@{SHA256}", f"docker.io/library/a@{SHA256}"),
    ],
)
def test_references_are_completed(text: str, whole: str, familiar: str, pinned: str) -> None:
    reference = parse_reference(text)
    assert (str(reference), reference.familiar, str(reference.pinned())) == (whole, familiar, pinned)


@pytest.mark.parametrize(
    "text",
    ["", "A", "a/B", "a:", "a@", "a b", "a//b", "-a", "a:" + "t" * 129, "a@sha256:12", "0" * 64, "x/" + "a" * 256],
)
def test_references_that_are_refused(text: str) -> None:
    with pytest.raises(DockerfileError):
        parse_reference(text)


def test_ids_and_digests_are_references_of_a_kind() -> None:
    assert parse_any_reference(SHA256.removeprefix("sha256:")) == SHA256
    assert parse_any_reference(SHA256) == SHA256
    assert parse_any_reference("a") == "docker.io/library/a"


def test_platforms_have_one_spelling() -> None:
    spellings = ("linux/arm64/v8", "aarch64", "linux/ARM", "linux/amd64/v1", "macos", "linux/armel", "linux/x86_64/v2")
    assert [str(normalize(parse_platform(text, HOST))) for text in spellings] == [
        "linux/arm64",
        "linux/arm64",
        "linux/arm/v7",
        "linux/amd64",
        "darwin/amd64",
        "linux/arm/v6",
        "linux/amd64/v2",
    ]
    windows = parse_platform("windows(10.0.17763+win32k%2Bx)/amd64", HOST)
    assert (windows.os_version, windows.os_features) == ("10.0.17763", ("win32k+x",))
    assert str(windows) == "windows(10.0.17763+win32k%2Bx)/amd64"
    for text in ("", "nope", "linux/", "a/b/c/d", "*", "linux /amd64", "windows(%zz)/amd64"):
        with pytest.raises(DockerfileError):
            parse_platform(text, HOST)


def test_platforms_run_what_is_older_and_smaller() -> None:
    candidates = [parse_platform(text, HOST) for text in ("linux/386", "linux/amd64", "linux/amd64/v3", "linux/arm64")]
    found = best_first(parse_platform("linux/amd64/v2", HOST), candidates)
    assert [str(platform) for platform in found] == ["linux/amd64", "linux/386"]
    assert not matches(HOST, Platform("linux", "386"), strict=True)
    server = Platform("windows", "amd64", os_version="10.0.26100.1")
    assert matches(server, Platform("windows", "amd64", os_version="10.0.20348.5"))
    assert not matches(server, Platform("windows", "amd64", os_version="10.0.17763.5"))
