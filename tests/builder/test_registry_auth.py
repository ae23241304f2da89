"""Passwords, tokens, certificates: real registries that want them, and nobody else who sees them."""

from __future__ import annotations

import base64
import json
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from builder.registry.client import RegistryClient
from builder.registry.errors import DeniedError, RegistryError, UnreachableError
from tests.conftest import Pybuild
from tests.faultproxy import Fault, fault_proxy
from tests.registries import PASSWORD, USER, Authority, Registry, TokenServer, htpasswd, registry, token_server


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    directory = tmp_path_factory.mktemp("locked")
    with registry(directory, auth=htpasswd(directory)) as running:
        yield running


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TokenServer]:
    with token_server(tmp_path_factory.mktemp("tokens")) as running:
        yield running


@pytest.fixture(scope="module")
def tokened(tmp_path_factory: pytest.TempPathFactory, tokens: TokenServer) -> Iterator[Registry]:
    with registry(tmp_path_factory.mktemp("tokened"), auth=tokens.auth) as running:
        yield running


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {"HOME": str(tmp_path), "PATH": os.environ["PATH"], "CONTAINERS_REGISTRIES_CONF": os.devnull}


def log_in(environ: dict[str, str], *domains: str, password: str = PASSWORD) -> Path:
    path = Path(environ["HOME"]) / ".docker/config.json"
    path.parent.mkdir(exist_ok=True)
    entry = {"auth": base64.b64encode(f"{USER}:{password}".encode()).decode()}
    path.write_text(json.dumps({"auths": dict.fromkeys(domains, entry)}))
    return path


def push_something(environ: dict[str, str], name: str) -> None:
    with RegistryClient(environ) as client:
        repository = client.repository(name, may_push=True)
        blob = repository.upload_bytes(os.urandom(100), "application/octet-stream")
        assert repository.has_blob(blob.digest)
        assert len(client.repository(name).read_blob(blob)) == 100


def test_basic(locked: Registry, environ: dict[str, str]) -> None:
    with pytest.raises(DeniedError) as raised:
        push_something(environ, locked.name("a"))
    assert raised.value.hint == f"pybuild login {locked.address}"
    log_in(environ, locked.address)
    push_something(environ, locked.name("a"))
    log_in(environ, locked.address, password="wrong")
    with pytest.raises(DeniedError, match="401") as raised:
        push_something(environ, locked.name("a"))
    assert "wrong" not in str(raised.value)


def test_a_password_goes_to_its_registry_only(locked: Registry, environ: dict[str, str]) -> None:
    with fault_proxy(locked) as front, fault_proxy(locked) as elsewhere:
        log_in(environ, front.address)
        push_something(environ, front.name("a"))
        assert any("authorization" in each.headers for each in front.passed)
        target = f"http://{elsewhere.address}/v2/a/manifests/x"
        front.rule = lambda method, path: Fault(status=307, headers={"Location": target}) if "/x" in path else None
        with RegistryClient(environ) as client, pytest.raises(RegistryError):
            client.repository(front.name("a")).manifest("x")
        assert elsewhere.passed
        assert not any("authorization" in each.headers for each in elsewhere.passed)


@pytest.mark.parametrize("method", ["POST", "PATCH", "PUT"])
def test_a_password_does_not_go_along_with_an_upload(locked: Registry, environ: dict[str, str], method: str) -> None:
    """Another host to which uploads are redirected gets the bytes alone, and refuses here for want of a password."""
    with fault_proxy(locked) as front, fault_proxy(locked) as elsewhere:
        log_in(environ, front.address)
        front.rule = lambda verb, path: (
            Fault(status=307, headers={"Location": f"http://{elsewhere.address}{path}"})
            if verb == method and "/blobs/" in path
            else None
        )
        with RegistryClient(environ) as client, pytest.raises(DeniedError, match="401"):
            client.repository(front.name("a"), may_push=True).upload_bytes(os.urandom(2 << 20), "x/y")
        assert elsewhere.passed
        assert not any("authorization" in each.headers for each in elsewhere.passed)


def test_tokens_by_scope(tokened: Registry, tokens: TokenServer, environ: dict[str, str]) -> None:
    with pytest.raises(DeniedError) as raised:
        push_something(environ, tokened.name("private/a"))
    assert raised.value.hint == f"pybuild login {tokened.address}"
    log_in(environ, tokened.address)
    tokens.requests.clear()
    push_something(environ, tokened.name("private/a"))
    asked = [fields["scope"] for _, _, fields in tokens.requests]
    assert asked == [["repository:private/a:pull,push"], ["repository:private/a:pull"]]  # each once, not for each call


def test_anybody_may_pull_what_is_public(tokened: Registry, tokens: TokenServer, environ: dict[str, str]) -> None:
    log_in(environ, tokened.address)
    with RegistryClient(environ) as client:
        repository = client.repository(tokened.name("public/a"), may_push=True)
        blob = repository.upload_bytes(b"public", "application/octet-stream")
    (Path(environ["HOME"]) / ".docker/config.json").unlink()
    tokens.requests.clear()
    with RegistryClient(environ) as client:
        assert client.repository(tokened.name("public/a")).read_blob(blob) == b"public"
    assert [authorization for _, authorization, _ in tokens.requests] == [""]


def test_refresh_tokens(tokened: Registry, tokens: TokenServer, environ: dict[str, str], tmp_path: Path) -> None:
    auth_file = tmp_path / "auth.json"
    auth_file.write_text(json.dumps({"auths": {tokened.address: {"identitytoken": tokens.identity_token}}}))
    environ["REGISTRY_AUTH_FILE"] = str(auth_file)
    tokens.requests.clear()
    push_something(environ, tokened.name("private/b"))
    assert {method for method, _, _ in tokens.requests} == {"POST"}
    assert not any(authorization for _, authorization, _ in tokens.requests)


def test_tokens_are_renewed(tokened: Registry, tokens: TokenServer, environ: dict[str, str]) -> None:
    log_in(environ, tokened.address)
    tokens.seconds, tokens.failures = 1, [503]
    try:
        tokens.requests.clear()
        push_something(environ, tokened.name("private/c"))
    finally:
        tokens.seconds = 300
    assert len(tokens.requests) > 3


def test_a_wrong_password_is_said_so(tokened: Registry, environ: dict[str, str]) -> None:
    log_in(environ, tokened.address, password="mistaken")
    with pytest.raises(DeniedError, match="wrong password") as raised:
        push_something(environ, tokened.name("private/a"))
    assert "mistaken" not in str(raised.value) + str(raised.value.hint)


def test_mounts_ask_for_both_repositories(tokened: Registry, tokens: TokenServer, environ: dict[str, str]) -> None:
    log_in(environ, tokened.address)
    with RegistryClient(environ) as client:
        blob = client.repository(tokened.name("private/m"), may_push=True).upload_bytes(b"mounted", "x/y")
        tokens.requests.clear()
        target = client.repository(tokened.name("private/n"), may_push=True)
        done = target.upload(blob, lambda: pytest.fail("nothing is to be sent"), mount_from=["private/m"])
    assert done.how == "mounted"
    assert ["repository:private/m:pull", "repository:private/n:pull,push"] in [f["scope"] for *_, f in tokens.requests]


def test_own_authority(authority: Authority, tmp_path: Path, environ: dict[str, str]) -> None:
    certificate, key = authority.issue("server")
    tls = {"certificate": str(certificate), "key": str(key)}
    with registry(tmp_path / "r", tls=tls) as running:
        with pytest.raises(UnreachableError, match="certificate is not trusted") as raised:
            push_something(environ, running.name("a"))
        assert "ca.crt" in str(raised.value.hint)
        with RegistryClient(environ, insecure=True) as client:
            client.repository(running.name("a"), may_push=True).upload_bytes(b"x", "x/y")
        directory = tmp_path / ".config/containers/certs.d" / running.address
        directory.mkdir(parents=True)
        (directory / "ca.crt").write_bytes(authority.certificate.read_bytes())
        push_something(environ, running.name("a"))


def test_client_certificates(authority: Authority, tmp_path: Path, environ: dict[str, str]) -> None:
    certificate, key = authority.issue("server2")
    own, own_key = authority.issue("client", usage="clientAuth")
    tls = {"certificate": str(certificate), "key": str(key), "clientcas": [str(authority.certificate)]}
    with registry(tmp_path / "r", tls=tls) as running:
        directory = tmp_path / ".config/docker/certs.d" / running.address
        directory.mkdir(parents=True)
        (directory / "ca.crt").write_bytes(authority.certificate.read_bytes())
        with pytest.raises(UnreachableError):
            push_something(environ, running.name("a"))
        (directory / "client.cert").write_bytes(own.read_bytes())
        with pytest.raises(RegistryError, match=r"without client\.key"):
            push_something(environ, running.name("a"))
        (directory / "client.key").write_bytes(own_key.read_bytes())
        push_something(environ, running.name("a"))


def test_login_and_logout(pybuild: Pybuild, locked: Registry, tmp_path: Path) -> None:
    config = tmp_path / "docker/config.json"
    config.parent.mkdir()
    config.write_text('{"proxies": {"default": {}}, "auths": {"other.example": {"auth": "eDp5"}}}')
    config.chmod(0o644)
    env = {"DOCKER_CONFIG": str(config.parent)}
    words = ("login", "-u", USER, "--password-stdin", locked.address)
    failed = pybuild(*words, env=env, stdin=None, input="wrong\n")
    assert failed.returncode == 1 and "does not take these credentials" in failed.stderr
    assert "401" in failed.stderr and "wrong" not in failed.stderr and "hint" not in failed.stderr
    done = pybuild.ok(*words, env=env, stdin=None, input=f"{PASSWORD}\n")
    assert done.stdout == "Login Succeeded\n"
    assert PASSWORD not in done.stdout + done.stderr
    assert stat.S_IMODE(config.stat().st_mode) == 0o600
    document = json.loads(config.read_text())
    assert set(document) == {"proxies", "auths"} and set(document["auths"]) == {"other.example", locked.address}
    push_something({**env, "HOME": str(tmp_path)}, locked.name("login"))
    assert "Removed the login" in pybuild.ok("logout", locked.address, env=env).stdout
    assert set(json.loads(config.read_text())["auths"]) == {"other.example"}
    assert "Not logged in" in pybuild.ok("logout", locked.address, env=env).stdout


def test_a_password_is_not_taken_from_the_command_line(pybuild: Pybuild, locked: Registry) -> None:
    failed = pybuild("login", "-u", USER, "-p", "geheim", locked.address)
    assert failed.returncode == 2
    assert "--password-stdin" in failed.stderr and "geheim" not in failed.stderr
    assert pybuild("login", locked.address).returncode == 2


HELPER = """#!{python}
import json, sys, pathlib
kept = pathlib.Path({kept!r})
known = json.loads(kept.read_text()) if kept.exists() else {{}}
given = sys.stdin.read()
if sys.argv[1] == "store":
    document = json.loads(given)
    known[document["ServerURL"]] = [document["Username"], document["Secret"]]
elif sys.argv[1] == "erase":
    known.pop(given, None)
elif given not in known:
    print("credentials not found in native keychain")
    raise SystemExit(1)
else:
    print(json.dumps(dict(zip(("Username", "Secret"), known[given]), ServerURL=given)))
kept.write_text(json.dumps(known))
"""


def test_credential_helpers(pybuild: Pybuild, locked: Registry, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    helper = tmp_path / "bin/docker-credential-test"
    helper.parent.mkdir()
    helper.write_text(HELPER.format(python=sys.executable, kept=str(kept)))
    helper.chmod(0o755)
    (tmp_path / "config.json").write_text('{"credsStore": "test"}')
    env = {"DOCKER_CONFIG": str(tmp_path), "PATH": f"{helper.parent}:{os.environ['PATH']}"}
    pybuild.ok("login", "-u", USER, "--password-stdin", locked.address, env=env, stdin=None, input=PASSWORD)
    assert json.loads(kept.read_text()) == {locked.address: [USER, PASSWORD]}
    assert json.loads((tmp_path / "config.json").read_text())["auths"] == {locked.address: {}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", env["PATH"])
        push_something({**env, "HOME": str(tmp_path)}, locked.name("helped"))
    pybuild.ok("logout", locked.address, env=env)
    assert json.loads(kept.read_text()) == {}


@pytest.mark.parametrize("name", ["../evil", "a b", "-x", "x/y", ""])
def test_names_of_helpers_are_names(locked: Registry, environ: dict[str, str], name: str) -> None:
    path = Path(environ["HOME"]) / ".docker/config.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"credHelpers": {locked.address: name}}))
    with pytest.raises(Exception, match="not a valid name" if name else "401"):
        push_something(environ, locked.name("a"))


def test_another_host_cannot_ask_for_the_password(
    locked: Registry, tokens: TokenServer, environ: dict[str, str]
) -> None:
    """A redirect leads to a server that names a token server, which would like to have credentials."""
    with fault_proxy(locked) as front, fault_proxy(locked) as elsewhere:
        log_in(environ, front.address)
        push_something(environ, front.name("a"))
        challenge = {"WWW-Authenticate": f'Bearer realm="{tokens.auth["token"]["realm"]}",service="x"'}
        elsewhere.rule = lambda _method, _path: Fault(status=401, headers=challenge)
        target = f"http://{elsewhere.address}/v2/a/manifests/x"
        front.rule = lambda _method, path: Fault(status=307, headers={"Location": target}) if "/x" in path else None
        tokens.requests.clear()
        with RegistryClient(environ) as client, pytest.raises(DeniedError):
            client.repository(front.name("a")).manifest("x")
        assert elsewhere.passed and tokens.requests == []


def test_a_token_that_is_taken_back(tokened: Registry, tokens: TokenServer, environ: dict[str, str]) -> None:
    """A token that the registry takes back is asked for once more, not for ever."""
    log_in(environ, tokened.address)
    with fault_proxy(tokened) as proxy:
        log_in(environ, proxy.address)
        challenge = {"WWW-Authenticate": f'Bearer realm="{tokens.auth["token"]["realm"]}",service="{tokens.service}"'}
        proxy.rule = lambda method, path: Fault(status=401, headers=challenge) if method == "HEAD" else None
        with RegistryClient(environ) as client, pytest.raises(DeniedError, match="401"):
            client.repository(proxy.name("private/a")).find_manifest("x")
        assert len(proxy.passed) < 6
