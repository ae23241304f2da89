"""Git repositories as sources: what a reference means, what is checked out, and what a repository must not reach."""

from __future__ import annotations

import contextlib
import os
import stat
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from builder.errors import BuildError
from builder.fetcher import Fetcher
from builder.git.access import access_to
from builder.git.command import Git, Place, Running
from builder.plan import GitSourceOp
from builder.redact import redact
from cache.snapshots import EMPTY
from cache.store import Store
from tests.remotes import COMMIT_TIME, GitRepository, Server, serving


class Given:
    """Secrets and ssh agents from dictionaries."""

    def __init__(self, secrets: Mapping[str, bytes] | None = None, ssh: Mapping[str, str] | None = None) -> None:
        self.ssh = ssh or {}
        self._secrets = secrets or {}

    def read(self, secret_id: str) -> bytes | None:
        return self._secrets.get(secret_id)


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(str(tmp_path / "store")) as opened:
        yield opened


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with serving(tmp_path / "served") as served:
        yield served


@pytest.fixture
def repository(tmp_path: Path) -> GitRepository:
    return GitRepository(tmp_path / "x")


def local(repository: GitRepository, **fields: object) -> GitSourceOp:
    """An op on a repository of this machine, as no Dockerfile can name one."""
    return GitSourceOp(f"file://{repository.path}", **fields)  # type: ignore[arg-type]


def commit_of(op: GitSourceOp, store: Store, given: Given | None = None) -> str:
    return str(Fetcher(store, time.time_ns, given).repository(op).key()["commit"])


def checked_out(op: GitSourceOp, store: Store, given: Given | None = None) -> Path:
    """The op's root, in an active snapshot that stays."""
    active = store.snapshots.prepare(EMPTY)
    Fetcher(store, time.time_ns, given).repository(op).materialise(active)
    return Path(active.upper_dir)


def names(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


def holds(directory: Path, secret: str) -> list[str]:
    """The files below a directory that have a text in their names or bytes."""
    found = [str(path) for path in directory.rglob("*") if secret in path.name]
    files = [path for path in directory.rglob("*") if path.is_file() and not path.is_symlink()]
    return found + [str(path) for path in files if secret.encode() in path.read_bytes()]


# What a reference means


def test_references_lead_to_commits(repository: GitRepository, store: Store) -> None:
    first = repository.commit(f="1")
    repository.git("tag", "light")
    repository.git("tag", "--annotate", "--message=t", "heavy")
    repository.git("branch", "feature/x")
    second = repository.commit(f="2")
    assert commit_of(local(repository), store) == second
    assert commit_of(local(repository, ref="main"), store) == second
    assert commit_of(local(repository, ref="refs/heads/main"), store) == second
    for ref in ("light", "heavy", "refs/tags/heavy", "tags/heavy", "feature/x", "heads/feature/x", first):
        assert commit_of(local(repository, ref=ref), store) == first, ref


def test_a_branch_wins_over_a_tag_and_nothing_over_a_longer_name(repository: GitRepository, store: Store) -> None:
    first = repository.commit(f="1")
    repository.git("tag", "both")
    repository.git("branch", "a/v1", first)
    second = repository.commit(f="2")
    repository.git("branch", "both")
    assert commit_of(local(repository, ref="both"), store) == second
    with pytest.raises(BuildError, match='no branch or tag "v1"'):
        commit_of(local(repository, ref="v1"), store)


def test_a_whole_commit_asks_no_server(store: Store) -> None:
    op = GitSourceOp("http://127.0.0.1:1/x.git", "0" * 40)
    assert commit_of(op, store) == "0" * 40
    with pytest.raises(BuildError, match="expected commit 11, got 0000"):
        commit_of(op._replace(checksum="11"), store)


@pytest.mark.parametrize(
    ("ref", "words", "hint"),
    [
        ("mian", 'no branch or tag "mian"', 'did you mean "main"?'),
        ("abcdef0", "no branch or tag", "all of its 40 digits"),
        ("--upload-pack=touch /tmp/x", "invalid git ref", None),
    ],
)
def test_a_missing_reference(repository: GitRepository, store: Store, ref: str, words: str, hint: str | None) -> None:
    repository.commit(f="1")
    with pytest.raises(BuildError, match=words) as caught:
        commit_of(local(repository, ref=ref), store)
    assert (hint is None) == (caught.value.hint is None)
    assert (hint or "") in (caught.value.hint or "")


def test_an_empty_repository_has_no_default_branch(repository: GitRepository, store: Store) -> None:
    with pytest.raises(BuildError, match="no default branch"):
        commit_of(local(repository), store)


def test_a_checksum_is_a_beginning_of_the_commit_or_of_the_tag(repository: GitRepository, store: Store) -> None:
    commit = repository.commit(f="1")
    repository.git("tag", "--annotate", "--message=t", "v1")
    tag = repository.git("rev-parse", "v1")
    for checksum in (commit, commit[:8], commit[:8].upper(), tag):
        assert commit_of(local(repository, ref="v1", checksum=checksum), store) == commit
    with pytest.raises(BuildError, match=f"expected commit {'0' * 40}, got {tag} or {commit}"):
        commit_of(local(repository, ref="v1", checksum="0" * 40), store)
    with pytest.raises(BuildError, match="expected hex digits"):
        commit_of(local(repository, checksum="sha256:00"), store)


def test_fetch_by_commit_takes_the_checksum_for_the_reference(repository: GitRepository, store: Store) -> None:
    first = repository.commit(f="1")
    repository.commit(f="2")
    op = local(repository, ref="main", checksum=first, fetch_by_commit=True)
    assert (checked_out(op, store) / "f").read_text() == "1"
    with pytest.raises(BuildError, match="whole commit"):
        commit_of(op._replace(checksum=first[:10]), store)


def test_the_key_is_the_commit_and_the_options(repository: GitRepository, store: Store) -> None:
    repository.commit(f="1", d__g="2")
    op = local(repository)
    ops = [op, op._replace(subdir="d"), op._replace(submodules=False), op._replace(mtime="checkout")]
    ops += [op._replace(keep_git_dir=True), op._replace(keep_git_dir=True, ref=commit_of(op, store))]
    fetcher = Fetcher(store, time.time_ns)
    keys = [fetcher.repository(each).key() for each in ops]
    assert len({str(key) for key in keys}) == len(ops)
    assert str(repository.path) not in str(keys[0])
    assert fetcher.repository(op._replace(ref="main")).key() == keys[0]


# What is checked out


def test_files_are_roots_with_plain_modes_and_the_commits_time(repository: GitRepository, store: Store) -> None:
    repository.write(f="f", d__run="#!/bin/sh\n")
    (repository.path / "d/run").chmod(0o777)
    (repository.path / "link").symlink_to("d/run")
    repository.commit()
    before = os.umask(0o077)
    try:
        root = checked_out(local(repository), store)
    finally:
        os.umask(before)
    assert names(root) == ["d", "d/run", "f", "link"]
    for path, mode in ((root, 0o755), (root / "d", 0o755), (root / "d/run", 0o755), (root / "f", 0o644)):
        assert stat.S_IMODE(path.stat().st_mode) == mode, path
    for path in (root, *root.rglob("*")):
        assert (path.lstat().st_mtime, path.lstat().st_uid) == (COMMIT_TIME, 0), path
    assert os.readlink(root / "link") == "d/run"


@pytest.mark.parametrize("keep", [False, True])
def test_two_stores_get_the_same_layer(repository: GitRepository, tmp_path: Path, keep: bool) -> None:
    repository.commit(f="f", d__g="g")
    found = set()
    for number in range(2):
        with Store.open(str(tmp_path / f"store{number}")) as store:
            active = store.snapshots.prepare(EMPTY)
            Fetcher(store, time.time_ns).repository(local(repository, keep_git_dir=keep)).materialise(active)
            found.add(store.snapshots.commit(active).chain_id)
    assert len(found) == 1


def test_mtime_checkout_is_the_time_of_the_checkout(repository: GitRepository, store: Store) -> None:
    repository.commit(f="f")
    root = checked_out(local(repository, mtime="checkout"), store)
    assert (root / "f").stat().st_mtime > COMMIT_TIME + 10**6


def test_a_subdirectory_becomes_the_root(repository: GitRepository, store: Store) -> None:
    repository.commit(f="f", a__b__g="g", a__b__c__h="h")
    root = checked_out(local(repository, subdir="a/b", keep_git_dir=True), store)
    assert names(root) == ["c", "c/h", "g"]
    assert (root / "c").stat().st_mtime == COMMIT_TIME


@pytest.mark.parametrize(
    "subdir", ["out", "out/host", "in", "in/sub", "file", "real/../out", "../x", "nothing", "real/out"]
)
def test_a_subdirectory_that_is_none_is_refused(
    repository: GitRepository, store: Store, tmp_path: Path, subdir: str
) -> None:
    canary = tmp_path / "host"
    canary.mkdir()
    (canary / "secret").write_text("canary")
    repository.write(file="f", real__sub__g="g")
    (repository.path / "out").symlink_to(canary.parent)
    (repository.path / "real/out").symlink_to(canary)
    (repository.path / "in").symlink_to("real")
    repository.commit()
    with pytest.raises(BuildError, match=r"is not a directory of the repository|has no directory"):
        checked_out(local(repository, subdir=subdir), store)
    assert (canary / "secret").read_text() == "canary"
    assert not [path for path in (tmp_path / "store/snapshots").rglob("secret") if not path.parent.is_symlink()]


def test_a_kept_repository_is_whole_and_names_no_directory_of_this_machine(
    repository: GitRepository, store: Store, tmp_path: Path
) -> None:
    repository.commit(f="1")
    commit = repository.commit(f="2")
    repository.git("tag", "--annotate", "--message=t", "v1")
    root = checked_out(local(repository, ref="v1", keep_git_dir=True), store)
    safe = ["git", "-c", "safe.directory=*"]
    for words, wanted in ((("rev-parse", "HEAD"), commit), (("status", "--porcelain"), ""), (("tag",), "v1")):
        done = subprocess.run([*safe, *words], cwd=root, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == wanted
    assert not (root / ".git/hooks").exists()
    assert not (root / ".git/FETCH_HEAD").exists()
    assert holds(root, str(tmp_path / "store")) == []
    assert (root / ".git/HEAD").stat().st_mtime == COMMIT_TIME + 1


def test_objects_of_sha256(tmp_path: Path, store: Store) -> None:
    repository = GitRepository(tmp_path / "x", "--object-format=sha256")
    commit = repository.commit(f="f")
    assert len(commit) == 64
    for keep in (False, True):
        assert (checked_out(local(repository, ref=commit, keep_git_dir=keep), store) / "f").read_text() == "f"


# Servers


@pytest.mark.parametrize("speaks_v2", [True, False])
def test_any_commit_of_a_smart_server(repository: GitRepository, store: Store, server: Server, speaks_v2: bool) -> None:
    server.speaks_v2 = speaks_v2
    first = repository.commit(f="1")
    repository.commit(f="2")
    url = server.smart(repository)
    for ref, text in (("", "2"), ("main", "2"), (first, "1")):
        assert (checked_out(GitSourceOp(url, ref), store) / "f").read_text() == text


def test_any_commit_of_a_dumb_server(repository: GitRepository, store: Store, server: Server) -> None:
    first = repository.commit(f="1")
    repository.commit(f="2")
    url = server.dumb(repository)
    for ref, text in (("", "2"), ("main", "2"), (first, "1")):
        assert (checked_out(GitSourceOp(url, ref), store) / "f").read_text() == text


@pytest.mark.parametrize("speaks_v2", [True, False])
def test_a_commit_that_is_not_there(repository: GitRepository, store: Store, server: Server, speaks_v2: bool) -> None:
    repository.commit(f="1")
    server.speaks_v2 = speaks_v2
    with pytest.raises(BuildError, match=f"no commit {'1' * 40}"):
        checked_out(GitSourceOp(server.smart(repository), "1" * 40), store)


def test_an_object_that_is_no_commit(repository: GitRepository, store: Store) -> None:
    repository.commit(f="1")
    blob = repository.git("rev-parse", "HEAD:f")
    with pytest.raises(BuildError, match=f"{blob} is not a commit"):
        checked_out(local(repository, ref=blob), store)


def test_what_was_fetched_is_not_fetched_again(repository: GitRepository, store: Store, server: Server) -> None:
    commit = repository.commit(f="1")
    op = GitSourceOp(server.smart(repository), commit)
    checked_out(op, store)
    asked = len(server.requests)
    assert (checked_out(op, store) / "f").read_text() == "1"
    assert len(server.requests) == asked


def test_a_moved_branch_is_followed(repository: GitRepository, store: Store, server: Server) -> None:
    op = GitSourceOp(server.smart(repository), "main", keep_git_dir=True)
    for text in ("1", "2"):
        repository.commit(f=text)
        assert (checked_out(op, store) / "f").read_text() == text
    repository.git("checkout", "--quiet", "--orphan", "other")
    repository.commit(f="3")
    repository.git("branch", "--force", "main", "other")
    assert (checked_out(op, store) / "f").read_text() == "3"


def test_what_killed_fetches_left_is_no_hindrance(repository: GitRepository, store: Store, server: Server) -> None:
    repository.commit(f="1")
    op = GitSourceOp(server.smart(repository))
    checked_out(op, store)
    (bare,) = (path for path in Path(store.root, "git").iterdir() if path.is_dir())
    (bare / "shallow.lock").touch()
    repository.commit(f="2")
    assert (checked_out(op, store) / "f").read_text() == "2"
    bare.rename(f"{bare}.new")
    assert (checked_out(op, store) / "f").read_text() == "2"


def test_many_at_once_share_one_repository(repository: GitRepository, store: Store, server: Server) -> None:
    repository.commit(f="1")
    url, found = server.smart(repository), []

    def check_out() -> None:
        found.append((checked_out(GitSourceOp(url), store) / "f").read_text())

    threads = [threading.Thread(target=check_out) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == ["1"] * 6
    assert len([path for path in Path(store.root, "git").iterdir() if path.is_dir()]) == 1


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://127.0.0.1:1/x.git", "Failed to connect"),
        ("http://127.0.0.1:{port}/files/nothing.git", "not found"),
        ("git://127.0.0.1:1/x.git", "unable to connect"),
        ("file:///no/such/x.git", "does not appear to be a git repository"),
    ],
)
def test_a_remote_that_cannot_be_read(store: Store, server: Server, url: str, words: str) -> None:
    with pytest.raises(BuildError, match=words) as caught:
        commit_of(GitSourceOp(url.format(port=server.port)), store)
    assert caught.value.hint


@pytest.mark.parametrize("remote", ["ext::sh -c touch% {canary}", "fd::17", "ftp://127.0.0.1/x.git"])
def test_other_transports_are_off(store: Store, tmp_path: Path, remote: str) -> None:
    canary = tmp_path / "canary"
    with pytest.raises(BuildError, match="not allowed"):
        commit_of(GitSourceOp(remote.format(canary=canary)), store, Given(ssh={"default": "/agent"}))
    assert not canary.exists()


def test_without_git_the_error_says_what_to_install(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(BuildError, match="git is not installed") as caught:
        commit_of(GitSourceOp("http://127.0.0.1:1/x.git"), store)
    assert "apt-get install git" in (caught.value.hint or "")


def test_a_cancelled_build_does_not_wait_for_a_silent_server(store: Store) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        fetcher = Fetcher(store, time.time_ns)
        errors: list[BaseException] = []

        def ask() -> None:
            try:
                fetcher.repository(GitSourceOp(f"http://127.0.0.1:{silent.getsockname()[1]}/x.git")).key()
            except BuildError as error:
                errors.append(error)

        thread = threading.Thread(target=ask, daemon=True)
        thread.start()
        connection, _ = silent.accept()
        fetcher.cancel()
        thread.join(timeout=30)
        connection.close()
    assert not thread.is_alive()
    assert len(errors) == 1
    with pytest.raises(BuildError, match="interrupted"):
        fetcher.repository(GitSourceOp("http://127.0.0.1:1/y.git")).key()


# Submodules


def with_submodules(tmp_path: Path, server: Server) -> GitRepository:
    """A repository with a submodule by a relative URL, which has one by an absolute URL."""
    inner, middle, outer = (GitRepository(tmp_path / name) for name in ("inner", "middle", "outer"))
    inner.commit(i="inner")
    middle.git("submodule", "--quiet", "add", server.smart(inner), "deep")
    middle.commit(m="middle")
    server.smart(middle)
    server.smart(outer)
    outer.git("submodule", "--quiet", "add", str(middle.path), "lib/mid")
    outer.git("config", "--file=.gitmodules", "submodule.lib/mid.url", "../middle.git")
    outer.commit(o="outer")
    return outer


@pytest.mark.parametrize("speaks_v2", [True, False])
def test_submodules_come_with_it(tmp_path: Path, store: Store, server: Server, speaks_v2: bool) -> None:
    server.speaks_v2 = speaks_v2
    outer = with_submodules(tmp_path, server)
    root = checked_out(GitSourceOp(server.smart(outer)), store)
    tree = ["lib", "lib/mid", "lib/mid/.gitmodules", "lib/mid/deep", "lib/mid/deep/i", "lib/mid/m", "o"]
    assert names(root) == [".gitmodules", *tree]
    assert (root / "lib/mid/deep/i").stat().st_mtime == COMMIT_TIME
    assert names(checked_out(GitSourceOp(server.smart(outer), subdir="lib/mid/deep"), store)) == ["i"]


def test_submodules_of_a_dumb_server(tmp_path: Path, store: Store, server: Server) -> None:
    outer = with_submodules(tmp_path, server)
    assert (checked_out(GitSourceOp(server.dumb(outer)), store) / "lib/mid/deep/i").read_text() == "inner"


def test_submodules_can_be_left_out(tmp_path: Path, store: Store, server: Server) -> None:
    outer = with_submodules(tmp_path, server)
    root = checked_out(GitSourceOp(server.smart(outer), submodules=False), store)
    assert names(root) == [".gitmodules", "lib", "lib/mid", "o"]


def test_submodules_of_a_kept_repository_stay_repositories(tmp_path: Path, store: Store, server: Server) -> None:
    outer = with_submodules(tmp_path, server)
    root = checked_out(GitSourceOp(server.smart(outer), keep_git_dir=True), store)
    words = ["git", "-c", "safe.directory=*", "submodule", "status", "--recursive"]
    done = subprocess.run(words, cwd=root, capture_output=True, text=True, check=True)
    assert [line[0] for line in done.stdout.splitlines()] == [" ", " "]
    assert holds(root, store.root) == []


def test_a_submodule_cannot_be_a_directory_of_this_machine(tmp_path: Path, store: Store, server: Server) -> None:
    hidden, outer = GitRepository(tmp_path / "hidden"), GitRepository(tmp_path / "outer")
    hidden.commit(secret="canary")
    for url in (str(hidden.path), f"file://{hidden.path}"):
        outer.git("submodule", "--quiet", "add", "--force", url, f"s{len(url)}")
        outer.commit()
        with pytest.raises(BuildError, match="transport 'file' not allowed"):
            checked_out(GitSourceOp(server.smart(outer)), store)
    assert not list(Path(store.root).rglob("secret"))


def test_a_submodule_starts_no_program(tmp_path: Path, store: Store, server: Server) -> None:
    canary = tmp_path / "canary"
    inner, outer = GitRepository(tmp_path / "inner"), GitRepository(tmp_path / "outer")
    inner.commit(f="f")
    outer.git("submodule", "--quiet", "add", server.smart(inner), "s")
    outer.commit()
    for key, value in (("url", f"ext::sh -c touch% {canary}"), ("update", f"!touch {canary}"), ("url", "-u./x")):
        outer.git("config", "--file=.gitmodules", f"submodule.s.{key}", value)
        outer.commit()
        with pytest.raises(BuildError):
            checked_out(GitSourceOp(server.smart(outer)), store)
    assert not canary.exists()


# Attacks by what a repository holds


def crafted(repository: GitRepository, *entries: tuple[str, str, str]) -> None:
    """Make a tree, unchecked, the tip of the repository."""
    repository.graft(repository.git("commit-tree", "-m", "evil", repository.tree_of(*entries)))


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("name", [".git", "..", ".GIT", ".", "a/../../x", "git~1"])
def test_names_that_lead_elsewhere_are_refused(
    repository: GitRepository, store: Store, tmp_path: Path, name: str, keep: bool
) -> None:
    repository.commit(f="f")
    blob = repository.blob("evil")
    inner = repository.tree_of(("100644", blob, "config"))
    for mode, sha in (("100644", blob), ("120000", repository.blob(str(tmp_path))), ("40000", inner)):
        crafted(repository, (mode, sha, name))
        with pytest.raises(BuildError):
            checked_out(local(repository, keep_git_dir=keep), store)
    assert not (tmp_path / "config").exists()
    assert not (tmp_path / "store/config").exists()


@pytest.mark.parametrize("keep", [False, True])
def test_a_link_and_a_directory_of_one_name(
    repository: GitRepository, store: Store, tmp_path: Path, keep: bool
) -> None:
    """What git writes below `a` must not follow the link `a` to the host."""
    canary = tmp_path / "host"
    canary.mkdir()
    blob, link = repository.blob("evil"), repository.blob(str(canary))
    crafted(repository, ("120000", link, "a"), ("40000", repository.tree_of(("100644", blob, "f")), "a"))
    try:
        root = checked_out(local(repository, keep_git_dir=keep), store)
    except BuildError:
        root = None
    assert list(canary.iterdir()) == []
    assert root is None or not (root / "a").is_symlink() or not (root / "a/f").exists()


def test_a_submodule_below_a_link(tmp_path: Path, store: Store, server: Server) -> None:
    canary = tmp_path / "host"
    canary.mkdir()
    inner, outer = GitRepository(tmp_path / "inner"), GitRepository(tmp_path / "outer")
    commit = inner.commit(f="f")
    modules = outer.blob(f'[submodule "a/s"]\n\tpath = a/s\n\turl = {server.smart(inner)}\n')
    below = outer.tree_of(("160000", commit, "s"))
    crafted(outer, ("100644", modules, ".gitmodules"), ("120000", outer.blob(str(canary)), "a"), ("40000", below, "a"))
    with contextlib.suppress(BuildError):
        checked_out(GitSourceOp(server.smart(outer)), store)
    assert list(canary.iterdir()) == []


@pytest.mark.parametrize("path", ["../out", "/out", "a/../../out", ".git/hooks"])
def test_a_submodule_path_outside(tmp_path: Path, store: Store, server: Server, path: str) -> None:
    inner, outer = GitRepository(tmp_path / "inner"), GitRepository(tmp_path / "outer")
    commit = inner.commit(f="f")
    modules = outer.blob(f'[submodule "../../m"]\n\tpath = {path}\n\turl = {server.smart(inner)}\n')
    crafted(outer, ("100644", modules, ".gitmodules"), ("160000", commit, "s"))
    with contextlib.suppress(BuildError):
        checked_out(GitSourceOp(server.smart(outer)), store)
    assert not list(Path(store.root).rglob("out"))
    assert not (tmp_path / "out").exists()


def test_nothing_of_the_users_configuration_counts(
    repository: GitRepository, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    canary, home, hooks = tmp_path / "canary", tmp_path / "home", tmp_path / "template/hooks"
    home.mkdir()
    hooks.mkdir(parents=True)
    (hooks / "post-checkout").write_text(f"#!/bin/sh\ntouch {canary}\n")
    (hooks / "post-checkout").chmod(0o755)
    config = f'[core]\n\thooksPath = {hooks}\n\tfsmonitor = touch {canary}\n[filter "x"]\n\tsmudge = touch {canary}\n'
    (home / ".gitconfig").write_text(config)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(home / ".gitconfig"))
    monkeypatch.setenv("GIT_TEMPLATE_DIR", str(hooks.parent))
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    repository.commit(f="f", **{".gitattributes": "f filter=x\n"})
    for keep in (False, True):
        assert (checked_out(local(repository, keep_git_dir=keep), store) / "f").read_text() == "f"
    assert not canary.exists()


def test_a_repository_gives_no_filter_and_no_hook(repository: GitRepository, store: Store, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    repository.git("config", "filter.x.smudge", f"touch {canary}")
    repository.git("config", "uploadpack.packObjectsHook", f"touch {canary}")
    repository.commit(f="f", **{".gitattributes": "* filter=x\n"})
    checked_out(local(repository), store)
    assert not canary.exists()


# Credentials


PASSWORD = "s3cr3t-w0rd"


def wrapped_git(directory: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A git first on PATH that writes down how it is called; returns the file."""
    log, real = directory / "argv", subprocess.check_output(["which", "git"], text=True).strip()
    directory.mkdir()
    (directory / "git").write_text(f'#!/bin/sh\necho "$@" >> {log}\nexec {real} "$@"\n')
    (directory / "git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{directory}:{os.environ['PATH']}")
    return log


@pytest.mark.parametrize("keep", [False, True])
def test_a_password_in_the_url_is_used_and_kept_nowhere(
    repository: GitRepository, store: Store, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep: bool
) -> None:
    server.password = f"user:{PASSWORD}"
    repository.commit(f="f")
    log = wrapped_git(tmp_path / "bin", monkeypatch)
    op = GitSourceOp(server.smart(repository, f"user:{PASSWORD}"), keep_git_dir=keep)
    root = checked_out(op, store)
    assert (root / "f").read_text() == "f"
    assert PASSWORD not in str(Fetcher(store, time.time_ns).repository(op).key())
    assert PASSWORD not in log.read_text()
    assert holds(Path(store.root), PASSWORD) == []
    if keep:
        assert f"url = {server.smart(repository)}" in (root / ".git/config").read_text()


def test_submodules_of_the_same_host_get_the_password_too(tmp_path: Path, store: Store, server: Server) -> None:
    inner, outer = GitRepository(tmp_path / "inner"), GitRepository(tmp_path / "outer")
    inner.commit(f="f")
    server.smart(inner)
    outer.git("submodule", "--quiet", "add", str(inner.path), "s")
    outer.git("config", "--file=.gitmodules", "submodule.s.url", "../inner.git")
    outer.commit()
    server.password = f"user:{PASSWORD}"
    root = checked_out(GitSourceOp(server.smart(outer, f"user:{PASSWORD}"), keep_git_dir=True), store)
    assert (root / "s/f").read_text() == "f"
    assert holds(Path(store.root), PASSWORD) == []


def test_a_wrong_password_is_not_in_the_error(repository: GitRepository, store: Store, server: Server) -> None:
    server.password = "user:right"
    repository.commit(f="f")
    for user in (f"user:{PASSWORD}", PASSWORD, f"{PASSWORD}:", f"user:{PASSWORD}%40x"):
        with pytest.raises(BuildError) as caught:
            commit_of(GitSourceOp(server.smart(repository, user)), store)
        assert PASSWORD not in f"{caught.value} {caught.value.hint} {caught.value.output}"
        assert "--secret id=GIT_AUTH_TOKEN" in (caught.value.hint or "")


def test_what_a_server_repeats_of_a_secret_is_hidden(store: Store, server: Server) -> None:
    url = server.url.replace("//", f"//user:{PASSWORD}@") + "/x.git"
    git = Git(access_to(url, None, known_hosts="/nowhere"), Running())
    with pytest.raises(BuildError, match="does not appear to be a git repository") as caught:
        git.run(Place("/"), "ls-remote", "--", f"/no/{PASSWORD}")
    assert PASSWORD not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://u:p@host/x.git", "https://host/x.git"),
        (
            "see HTTP://t0ken@host:80?a=b@c, git://u:p@@h/ and 'http://a:b@c'",
            "see HTTP://host:80?a=b@c, git://h/ and 'http://c'",
        ),
        ("ssh://git:p@host/x", "ssh://git@host/x"),
        ("ssh://git@host/x git@host:x", "ssh://git@host/x git@host:x"),
        ("https://host/a@b#c@d mail@host", "https://host/a@b#c@d mail@host"),
    ],
)
def test_what_is_shown_of_a_url(text: str, shown: str) -> None:
    assert redact(text) == shown


@pytest.mark.parametrize(
    "secrets",
    [
        {"GIT_AUTH_TOKEN": b"tok"},
        {"GIT_AUTH_TOKEN.127.0.0.1:{port}": b"tok", "GIT_AUTH_TOKEN": b"wrong"},
        {"GIT_AUTH_HEADER": b"basic eC1hY2Nlc3MtdG9rZW46dG9r", "GIT_AUTH_TOKEN": b"wrong"},
    ],
)
def test_tokens_come_from_secrets(
    repository: GitRepository, store: Store, server: Server, secrets: dict[str, bytes]
) -> None:
    server.password = "x-access-token:tok"
    repository.commit(f="f")
    given = Given({name.format(port=server.port): value for name, value in secrets.items()})
    assert (checked_out(GitSourceOp(server.smart(repository)), store, given) / "f").read_text() == "f"
    assert holds(Path(store.root), "eC1hY2Nlc3MtdG9rZW46dG9r") == []


def test_secrets_do_not_go_to_another_server(
    repository: GitRepository, store: Store, server: Server, tmp_path: Path
) -> None:
    repository.commit(f="f")
    with serving(tmp_path / "other") as other:
        for service in ("/smart/x.git/info/refs", "/smart/x.git/git-upload-pack"):
            server.redirects[service] = other.smart(repository) + service.removeprefix("/smart/x.git")
        with pytest.raises(BuildError):
            checked_out(GitSourceOp(server.smart(repository)), store, Given({"GIT_AUTH_TOKEN": b"tok"}))
        other.password = "user:other"
        with pytest.raises(BuildError):
            checked_out(GitSourceOp(server.smart(repository, f"user:{PASSWORD}")), store)
        assert not [headers for _, headers in other.requests if "authorization" in headers]


def test_a_redirect_is_followed_when_there_is_no_secret(
    repository: GitRepository, store: Store, server: Server, tmp_path: Path
) -> None:
    repository.commit(f="f")
    with serving(tmp_path / "other") as other:
        server.redirects["/smart/x.git/info/refs"] = other.smart(repository) + "/info/refs"
        assert (checked_out(GitSourceOp(server.smart(repository)), store) / "f").read_text() == "f"


@pytest.mark.parametrize("user", ["a%0Ahost=evil:b", "a:b%0d"])
def test_a_password_with_a_line_end_is_refused(store: Store, user: str) -> None:
    with pytest.raises(BuildError, match="control character"):
        commit_of(GitSourceOp(f"http://{user}@127.0.0.1:1/x.git"), store)


# ssh


def fake_ssh(directory: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An ssh first on PATH that runs the remote command here and writes down how it was called; returns the file."""
    log = directory / "log"
    directory.mkdir()
    script = f'#!/bin/sh\necho "$SSH_AUTH_SOCK $@" >> {log}\nfor last; do :; done\nexec sh -c "$last"\n'
    (directory / "ssh").write_text(script)
    (directory / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{directory}:{os.environ['PATH']}")
    return log


@pytest.mark.parametrize("form", ["git@host:{path}", "ssh://git@host{path}", "ssh://git:s3cr3t-w0rd@host{path}"])
def test_ssh_uses_the_agent_that_was_passed_on(
    repository: GitRepository, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    log = fake_ssh(tmp_path / "bin", monkeypatch)
    monkeypatch.setenv("SSH_AUTH_SOCK", "/ambient")
    repository.commit(f="f")
    op = GitSourceOp(form.format(path=repository.path / ".git"))
    assert (checked_out(op, store, Given(ssh={"default": "/agent"})) / "f").read_text() == "f"
    calls = log.read_text().splitlines()
    assert all(call.startswith("/agent -F /dev/null") and " git@host " in call for call in calls)
    assert PASSWORD not in log.read_text()
    assert "BatchMode=yes" in calls[0]


def test_ssh_without_an_agent_says_how_to_give_one(store: Store) -> None:
    with pytest.raises(BuildError, match="no ssh agent") as caught:
        commit_of(GitSourceOp("git@host:x.git"), store)
    assert "--ssh default" in (caught.value.hint or "")


@pytest.mark.parametrize("remote", ["-oProxyCommand=x@host:x.git", "ssh://-oProxyCommand=touch/x.git"])
def test_a_host_is_no_option_of_ssh(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, remote: str) -> None:
    log = fake_ssh(tmp_path / "bin", monkeypatch)
    with pytest.raises(BuildError):
        commit_of(GitSourceOp(remote), store, Given(ssh={"default": "/agent"}))
    assert not log.exists() or " -oProxyCommand" not in log.read_text().partition(" -- ")[0]
