"""Names to places: registries.conf, proxies, credentials files and challenges, without a network."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path

import pytest
from hypothesis import given, strategies

from builder.errors import BuildError
from builder.registry.challenge import parse_challenges
from builder.registry.credentials import Credentials, find_credentials
from builder.registry.endpoint import own_endpoint, pull_sources
from builder.registry.errors import shown
from builder.registry.logins import registry_domain
from builder.registry.proxies import is_loopback, proxy_for
from builder.registry.registriesconf import RegistriesConf, read_registries_conf
from grammar.reference import parse_reference

CONF = """
unqualified-search-registries = ["first.example", "docker.io"]

[[registry]]
prefix = "docker.io"
location = "docker.io"
[[registry.mirror]]
location = "mirror.example:5000/hub"
insecure = true
[[registry.mirror]]
location = "tags.example"
pull-from-mirror = "tag-only"

[[registry]]
location = "docker.io/secret"
blocked = true

[[registry]]
prefix = "*.internal"
insecure = true

[[registry]]
prefix = "old.example/team"
location = "new.example/people"
mirror-by-digest-only = true
[[registry.mirror]]
location = "near.example/people"

[aliases]
"fedora" = "fedora.example/os/fedora"
"""
DIGEST = "sha256:" + "a" * 64


@pytest.fixture
def conf(tmp_path: Path) -> RegistriesConf:
    path = tmp_path / "registries.conf"
    path.write_text(CONF)
    return read_registries_conf({"CONTAINERS_REGISTRIES_CONF": str(path)})


def places(text: str, conf: RegistriesConf) -> list[str]:
    found = pull_sources(text, conf)
    return [f"{source.endpoint}{'!' if source.endpoint.insecure else ''} {source.reference}" for source in found]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("alpine", ["docker.io/library/alpine latest"]),
        ("team/app:1", ["docker.io/team/app 1"]),
        ("docker.io/alpine:3", ["docker.io/library/alpine 3"]),
        ("index.docker.io/alpine", ["docker.io/library/alpine latest"]),
        (f"alpine:3@{DIGEST}", [f"docker.io/library/alpine {DIGEST}"]),
        ("localhost:5000/x", ["localhost:5000/x latest"]),
        ("quay.example/a/b/c:t", ["quay.example/a/b/c t"]),
    ],
)
def test_names_without_configuration(name: str, expected: list[str]) -> None:
    assert places(name, RegistriesConf()) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "docker.io/library/alpine:3",
            [
                "mirror.example:5000/hub/library/alpine! 3",
                "tags.example/library/alpine 3",
                "docker.io/library/alpine 3",
            ],
        ),
        (
            f"docker.io/library/alpine@{DIGEST}",
            [f"mirror.example:5000/hub/library/alpine! {DIGEST}", f"docker.io/library/alpine {DIGEST}"],
        ),
        ("build.internal/x", ["build.internal/x! latest"]),
        ("build.internal:5000/x", ["build.internal:5000/x! latest"]),
        ("internal/x", ["first.example/internal/x latest", *places("docker.io/internal/x", RegistriesConf())]),
        ("old.example/team/app:2", ["new.example/people/app 2"]),
        (f"old.example/team/app@{DIGEST}", [f"near.example/people/app {DIGEST}", f"new.example/people/app {DIGEST}"]),
        ("old.example/teams/app:2", ["old.example/teams/app 2"]),
        ("fedora:40", ["fedora.example/os/fedora 40"]),
    ],
)
def test_names_with_configuration(conf: RegistriesConf, name: str, expected: list[str]) -> None:
    found = places(name, conf)
    if name == "internal/x":
        assert found[0] == expected[0] and len(found) == 4  # the search registry, then Docker Hub with its mirrors
    else:
        assert found == expected


def test_blocked(conf: RegistriesConf) -> None:
    with pytest.raises(BuildError, match="blocked"):
        pull_sources("docker.io/secret/thing", conf)
    with pytest.raises(BuildError, match="blocked"):
        own_endpoint(parse_reference("secret/thing"), conf)
    assert str(own_endpoint(parse_reference("alpine"), conf)) == "docker.io/library/alpine"  # not to a mirror


def test_files_are_merged(tmp_path: Path) -> None:
    directory = tmp_path / "containers"
    (directory / "registries.conf.d").mkdir(parents=True)
    (directory / "registries.conf").write_text('[[registry]]\nlocation="a.example"\n[aliases]\nx="a.example/x"\n')
    (directory / "registries.conf.d/2.conf").write_text('[[registry]]\nlocation="a.example"\nblocked=true\n')
    (directory / "registries.conf.d/1.conf").write_text('[aliases]\nx="b.example/x"\n')
    conf = read_registries_conf({"XDG_CONFIG_HOME": str(tmp_path)})
    entry = conf.entry_for("a.example/y")
    assert entry is not None and entry.blocked
    assert conf.aliases["x"] == "b.example/x"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[registries.search]\nregistries=['x']", "first version"),
        ("[[registry]]\nblocked=true", "needs a location"),
        ("[[registry]]\nlocation='https://x'", "is not host"),
        ("[[registry]]\nlocation='x'\n[[registry.mirror]]\ninsecure=true", "needs a location"),
        ("[[registry]]\nlocation='x'\n[[registry.mirror]]\nlocation='y'\npull-from-mirror='some'", "expected one of"),
        ("registry = 3", "list of tables"),
        ("unqualified-search-registries = 'x'", "list of texts"),
        ("= x", "is not valid"),
    ],
)
def test_malformed_configuration(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "registries.conf"
    path.write_text(text)
    with pytest.raises(BuildError, match=message):
        read_registries_conf({"CONTAINERS_REGISTRIES_CONF": str(path)})


@pytest.mark.parametrize(
    ("url", "no_proxy", "expected"),
    [
        ("https://r.example/v2/", "", "http://proxy:3128"),
        ("http://r.example/v2/", "", "http://plain:80"),
        ("https://localhost:5000/", "", None),
        ("https://127.3.4.5/", "", None),
        ("https://[::1]:5000/", "", None),
        ("https://r.example/", "*", None),
        ("https://r.example/", "example", None),
        ("https://r.example/", ".example", None),
        ("https://r.example/", "*.example", None),
        ("https://rexample/", "example", "http://proxy:3128"),
        ("https://r.example:5000/", "r.example:5000", None),
        ("https://r.example:5001/", "r.example:5000", "http://proxy:3128"),
        ("https://10.1.2.3/", "10.0.0.0/8", None),
        ("https://11.1.2.3/", "10.0.0.0/8, 192.168.1.1", "http://proxy:3128"),
        ("https://192.168.1.1/", "10.0.0.0/8, 192.168.1.1", None),
    ],
)
def test_proxies(url: str, no_proxy: str, expected: str | None) -> None:
    environ = {"HTTPS_PROXY": "http://proxy:3128", "http_proxy": "plain:80", "NO_PROXY": no_proxy}
    assert proxy_for(url, environ) == expected
    assert proxy_for(url, {}) is None


def test_loopback() -> None:
    assert all(is_loopback(host) for host in ("localhost", "127.0.0.1", "::1", "a.localhost"))
    assert not any(is_loopback(host) for host in ("localhost.example", "128.0.0.1", "127.0.0.1.example"))


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ('Basic realm="x"', [("basic", {"realm": "x"})]),
        (
            'Bearer realm="https://t.example/token",service="s",scope="repository:a:pull,push"',
            [("bearer", {"realm": "https://t.example/token", "service": "s", "scope": "repository:a:pull,push"})],
        ),
        ('Bearer realm="a\\"b", Basic realm=c', [("bearer", {"realm": 'a"b'}), ("basic", {"realm": "c"})]),
        ("Negotiate", [("negotiate", {})]),
        (
            "bearer Realm=https://t.example/token,service=s",
            [("bearer", {"realm": "https://t.example/token", "service": "s"})],
        ),
        ("", []),
    ],
)
def test_challenges(header: str, expected: list[tuple[str, dict[str, str]]]) -> None:
    assert [(each.scheme, dict(each.parameters)) for each in parse_challenges(header)] == expected


@given(strategies.text())
def test_any_header_is_read(header: str) -> None:
    parse_challenges(header)


def encoded(user: str, password: str) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


def found(domain: str, path: str, environ: dict[str, str]) -> str | None:
    credentials = find_credentials(domain, path, environ)
    return None if credentials is None else credentials.user


def test_credentials_by_file_and_key(tmp_path: Path) -> None:
    environ = {"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path / "run")}
    docker, podman = tmp_path / ".docker/config.json", tmp_path / "run/containers/auth.json"
    docker.parent.mkdir()
    podman.parent.mkdir(parents=True)
    docker.write_text(
        json.dumps(
            {
                "auths": {
                    "https://index.docker.io/v1/": encoded("hub", "p"),
                    "https://old.example/v1/": encoded("old", "p"),
                    "empty.example": {},
                }
            }
        )
    )
    podman.write_text(
        json.dumps({"auths": {"a.example/team": encoded("team", "p:q"), "a.example": encoded("all", "p")}})
    )
    assert found("docker.io", "library/alpine", environ) == "hub"
    assert found("old.example", "x", environ) == "old"
    assert found("a.example", "team/app", environ) == "team"
    assert found("a.example", "teams/app", environ) == "all"
    assert found("a.example", "", environ) == "all"
    assert found("empty.example", "x", environ) is None
    credentials = find_credentials("a.example", "team/app", environ)
    assert credentials is not None and credentials.password == "p:q"
    first = tmp_path / "first.json"
    first.write_text(json.dumps({"auths": {"a.example": encoded("first", "p")}}))
    assert found("a.example", "team/app", {**environ, "REGISTRY_AUTH_FILE": str(first)}) == "first"


@pytest.mark.parametrize("text", ["{", "[]", '{"auths": {"a.example": {"auth": "%%%"}}}'])
def test_broken_credentials_are_not_shown(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text.replace("%%%", "geheim!"))
    with pytest.raises(BuildError) as raised:
        find_credentials("a.example", "x", {"HOME": os.devnull, "DOCKER_CONFIG": str(tmp_path)})
    assert "geheim" not in str(raised.value)


def test_credentials_do_not_print_themselves() -> None:
    assert "geheim" not in repr(Credentials("u", "geheim", "geheim")) + str(Credentials("u", "geheim"))


@pytest.mark.parametrize(
    ("text", "domain"),
    [
        ("docker.io", "docker.io"),
        ("https://index.docker.io/v1/", "docker.io"),
        ("R.Example:5000", "r.example:5000"),
        ("https://r.example", "r.example"),
        ("[::1]:5000", "[::1]:5000"),
    ],
)
def test_words_for_registries(text: str, domain: str) -> None:
    assert registry_domain(text) == domain


@pytest.mark.parametrize("text", ["", "a b", "-x", "x@y", "x:y", "..", "$(x)"])
def test_words_for_no_registry(text: str) -> None:
    with pytest.raises(BuildError, match="not a registry"):
        registry_domain(text)


def test_what_a_server_says_cannot_draw_on_the_terminal() -> None:
    assert shown("\x1b[2Jboo\r\n" + "x" * 1000).isprintable()
    assert len(shown("x" * 1000)) == 300
