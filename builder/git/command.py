"""Running git: with nothing of the machine's or the user's configuration, no hooks, no prompts, and no way to hang.

git gets its settings in its environment, which its own children inherit, submodules included. What a repository says
never starts a program: of the transports only http, https, ssh and git are on, and files as far as the user named them
(not a repository's submodules). Source: git(1), git-config(1).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator

from builder.errors import BuildError
from builder.git.access import Access
from builder.redact import redact
from cache.namedtuple import NamedTuple

_SETTINGS = (
    ("protocol.allow", "never"),
    ("protocol.http.allow", "always"),
    ("protocol.https.allow", "always"),
    ("protocol.ssh.allow", "always"),
    ("protocol.git.allow", "always"),
    ("protocol.file.allow", "user"),
    ("protocol.ext.allow", "never"),
    ("core.hooksPath", os.devnull),
    ("core.fsmonitor", "false"),
    ("core.logAllRefUpdates", "false"),
    ("credential.helper", ""),
    ("safe.directory", "*"),
    ("gc.auto", "0"),
    ("maintenance.auto", "false"),
    ("fetch.recurseSubmodules", "false"),
    ("init.defaultBranch", "master"),
    ("advice.detachedHead", "false"),
    ("http.lowSpeedLimit", "1"),
    ("http.lowSpeedTime", "60"),
)
_ENVIRONMENT = {
    "HOME": os.devnull,
    "XDG_CONFIG_HOME": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_SYSTEM": os.devnull,
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_TEMPLATE_DIR": "",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "LC_ALL": "C",
}
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY")
_HINTS = (
    (("ould not resolve host", "onnection refused", "ailed to connect", "onnection timed out", "o route to host"),
     "check the address, the network and the proxy"),
    (("ould not read Username", "ould not read Password", "uthentication failed", "returned error: 403"),
     "a private repository needs a token: --secret id=GIT_AUTH_TOKEN,env=VARIABLE"),
    (("ermission denied (publickey",), "the ssh agent has no key that this host accepts: ssh-add -l lists them"),
    (("ost key verification failed",), "the host has another key than before: remove the old one from known_hosts"),
    (("not found", "does not appear to be a git repository", "returned error: 404", "not valid: is this a git"),
     "check the address; a private repository may need a token: --secret id=GIT_AUTH_TOKEN,env=VARIABLE"),
    (("unable to update url base from redirection",), "give the address that the server redirects to"),
)  # fmt: skip


_ON_A_LEASH = '{ exec 3<&0; { read -r _; kill -9 0; } <&3 >/dev/null 2>&1 & exec "$@" </dev/null 3<&-; }'
"""What sh(1) runs around a program: its process group ends when standard input does, however this process ends."""


class GitError(BuildError):
    """A git program failed. `stderr` is all that it said, without secrets."""

    def __init__(self, message: str, *, hint: str | None, stderr: str) -> None:
        super().__init__(message, hint=hint)
        self.stderr = stderr

    @property
    def wants_history(self) -> bool:
        """Whether the server gives a commit only with its history (dumb HTTP, old servers)."""
        return "--depth" in self.stderr or "shallow" in self.stderr

    @property
    def wants_names(self) -> bool:
        """Whether the server gives only what a branch or a tag leads to."""
        return any(sign in self.stderr for sign in ("not our ref", "unadvertised object", "no such remote ref"))


class Running:
    """The git programs that run now. Any thread may use it."""

    def __init__(self) -> None:
        self._processes: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        self._is_cancelled = False

    @contextlib.contextmanager
    def started(self, argv: list[str], env: dict[str, str], cwd: str) -> Iterator[subprocess.Popen[bytes]]:
        """Start a program in a process group of its own, which ends with the block at the latest."""
        with self._lock:
            if self._is_cancelled:
                raise BuildError("the build was interrupted")
            reading, leash = os.pipe()
            try:
                process = subprocess.Popen(
                    ["sh", "-c", _ON_A_LEASH, "sh", *argv],
                    env=env,
                    cwd=cwd,
                    stdin=reading,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    start_new_session=True,
                    umask=0o022,
                )
            except BaseException:
                os.close(leash)
                raise
            finally:
                os.close(reading)
            self._processes.add(process)
        try:
            yield process
        except BaseException:
            _kill(process)
            process.wait()
            raise
        finally:
            os.close(leash)
            with self._lock:
                self._processes.discard(process)

    def cancel(self) -> None:
        """End what runs, and start nothing any more. Idempotent."""
        with self._lock:
            self._is_cancelled = True
            for process in self._processes:
                _kill(process)


def _kill(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


class Place(NamedTuple):
    """Where a git program works: its directory, and with `git_dir` and `work_tree` on which repository."""

    cwd: str
    git_dir: str = ""
    work_tree: str = ""


class Git:
    """git for one remote."""

    def __init__(self, access: Access, running: Running) -> None:
        self.access = access
        self.shown = redact(access.url)
        """The remote as messages show it."""
        self._running = running

    def run(self, place: Place, *words: str) -> str:
        """Run a git command; returns what it printed. Raises GitError, and BuildError when there is no git."""
        argv = ["git"]
        if place.work_tree:
            argv += ["--work-tree", place.work_tree]
        if place.git_dir:
            argv += ["--git-dir", place.git_dir]
        env = self._environment()
        if shutil.which("git", path=env["PATH"]) is None:
            raise BuildError(
                "git is not installed, and a git repository is a source of this build",
                hint="install it: apt-get install git",
            )
        with self._running.started([*argv, *words], env, place.cwd) as process:
            stdout, stderr = process.communicate()
        if process.returncode:
            raise self._error(words[0], process.returncode, stderr)
        return os.fsdecode(stdout)

    def _environment(self) -> dict[str, str]:
        env = {"PATH": os.environ.get("PATH", os.defpath), **_ENVIRONMENT}
        for name in _PROXIES:
            env |= {key: os.environ[key] for key in (name, name.lower()) if key in os.environ}
        settings = (*_SETTINGS, *self.access.config)
        env["GIT_CONFIG_COUNT"] = str(len(settings))
        for index, (key, value) in enumerate(settings):
            env[f"GIT_CONFIG_KEY_{index}"] = key
            env[f"GIT_CONFIG_VALUE_{index}"] = value
        return env | dict(self.access.env)

    def _error(self, command: str, code: int, stderr: bytes) -> GitError:
        text = redact(stderr.decode("utf-8", "replace"))
        for word in sorted(self.access.hidden, key=len, reverse=True):
            text = text.replace(word, "xxxxx")
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        reasons = [line for line in lines if line.startswith(("fatal:", "error:", "remote:", "ERROR:"))] or lines
        reason = reasons[0].partition(": ")[2] if reasons and ": " in reasons[0] else "".join(reasons[:1])
        hint = next((hint for signs, hint in _HINTS if any(sign in text for sign in signs)), None)
        message = f"{self.shown}: git {command} failed: {reason or f'exit status {code}'}"
        return GitError(message, hint=hint, stderr=text)
