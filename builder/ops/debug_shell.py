"""A shell in the sandbox of a step that failed: its root with what it wrote, its mounts, environment, user, directory.

What was in memory only, a tmpfs or a bind mount's changes, is gone with the step. Knows the terminal, no operation.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import termios
import threading
from collections.abc import Iterator
from contextlib import ExitStack

from builder.errors import BuildError
from builder.runner.terminal import Relay, raw_mode
from builder.sandbox.launcher import Launcher, StartedStep, Streams
from builder.sandbox.spec import ProcessSpec, RootMount
from builder.worker import Worker

DEFAULT_SHELL = "/bin/sh"
_TAIL_LINES = 20
_WINSIZE = 8
_RESIZE_SECONDS = 0.2


def look_inside(error: BuildError, spec: ProcessSpec, root: RootMount, worker: Worker) -> None:
    """What --debug-shell asks for when a step failed: an interactive shell on the terminal, or a word in the hint.

    Returns when the shell has ended; how it ended changes nothing.
    """
    if worker.sandbox.options.debug_shell == "hint":
        _advise(error, "to look inside the failed step: --debug-shell on-error")
    elif not os.isatty(0):
        _advise(error, "--debug-shell on-error needs a terminal on standard input")
    else:
        with worker.sandbox.terminal, worker.reporter.paused():
            _talk(error, spec, root, worker.sandbox.launcher)


def shell_of(argv: tuple[str, ...]) -> str:
    """The shell that a step's command line is for, `/bin/bash` of `/bin/bash -eo pipefail -c …`, else /bin/sh."""
    if any(word.startswith("-") and word.endswith("c") for word in argv[1:-1]):
        return argv[0]
    return DEFAULT_SHELL


def _advise(error: BuildError, text: str) -> None:
    error.hint = f"{error.hint}\nhint: {text}" if error.hint else text


def _talk(error: BuildError, spec: ProcessSpec, root: RootMount, launcher: Launcher) -> None:
    screen_fd = next((fd for fd in (2, 1) if os.isatty(fd)), 0)
    shell = shell_of(spec.argv)
    tail = "".join(f" > {line}\n" for line in error.output.splitlines()[-_TAIL_LINES:])
    _say(screen_fd, f"{tail}{error}\ndebug shell: {shell} in the failed step; exit ends the build\n")
    env = tuple(text for text in spec.env if not text.startswith("TERM="))
    asked = spec._replace(argv=(shell,), env=(*env, f"TERM={os.environ.get('TERM', 'xterm')}"), terminal=True)
    try:
        _run(asked, root, launcher, screen_fd)
    except BuildError as refused:
        _say(screen_fd, f"debug shell: {refused}\n")


def _say(fd: int, text: str) -> None:
    with contextlib.suppress(OSError):
        os.write(fd, text.encode("utf-8", "replace"))


def _run(spec: ProcessSpec, root: RootMount, launcher: Launcher, screen_fd: int) -> None:
    with ExitStack() as stack:
        stack.enter_context(raw_mode(0))

        def connect(step: StartedStep) -> None:
            assert step.terminal_fd is not None, "the spec asks for a terminal"
            relay = Relay(step.terminal_fd, stdin_fd=0, stdout_fd=screen_fd, on_hangup=lambda: launcher.kill(step.step))
            stack.enter_context(_same_size(os.dup(step.terminal_fd), screen_fd))
            relay.start()
            stack.callback(relay.finish)

        launcher.run(spec, root, Streams(), on_start=connect)


@contextlib.contextmanager
def _same_size(fd: int, like_fd: int) -> Iterator[None]:
    """Inside the block the terminal `fd`, closed at its end, has the size of `like_fd`.

    Looks at it now and then: SIGWINCH is the main thread's, and a step may run in any.
    """
    ended = threading.Event()

    def copy_size() -> None:
        last = b""
        while True:
            with contextlib.suppress(OSError):
                size = fcntl.ioctl(like_fd, termios.TIOCGWINSZ, bytes(_WINSIZE))
                if size != last:
                    fcntl.ioctl(fd, termios.TIOCSWINSZ, size)
                last = size
            if ended.wait(_RESIZE_SECONDS):
                return

    watcher = threading.Thread(target=copy_size, name="terminal-size", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()
        os.close(fd)
