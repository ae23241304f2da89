"""`.dockerignore`: reading its patterns, and telling which paths of a context it leaves out.

Later patterns win, `!` takes a path back in, and a match of a directory counts for all below it. Paths are relative,
with `/`. It walks nothing itself: a walker asks entry by entry and hands back the state of the directory it is in.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

from grammar.characters import quoted, trim
from grammar.errors import DockerfileError
from grammar.position import Range

MAX_LINE_SIZE = 65535
_WILDCARDS = frozenset("*[]?\\")


class MatchState(NamedTuple):
    """What is known of one directory: a bit for each pattern that matches it or one above it."""

    matched: int


class IgnorePattern(NamedTuple):
    """One pattern, clean and without its `!`."""

    text: str
    is_exception: bool
    matches: Callable[[str], bool]
    """Raises DockerfileError if the pattern turns out to be no valid expression."""


def read_patterns(source: bytes) -> list[str]:
    """The patterns in an ignore file, cleaned, `!` kept. Raises DockerfileError for a line that is too long."""
    patterns: list[str] = []
    text = source.decode("utf-8", "surrogateescape").removeprefix("\ufeff")
    for number, line in enumerate(text.split("\n"), start=1):
        if len(line) * 4 > MAX_LINE_SIZE and len(line.encode("utf-8", "surrogateescape")) > MAX_LINE_SIZE:
            place = Range(number, number)
            raise DockerfileError(f"line {number} is longer than {MAX_LINE_SIZE} bytes", range=place)
        pattern = trim(line)
        if line.startswith("#") or not pattern:
            continue
        exception = "!" if pattern.startswith("!") else ""
        pattern = trim(pattern[len(exception) :])
        if pattern:
            pattern = _clean(pattern)
            pattern = pattern[1:] if len(pattern) > 1 and pattern.startswith("/") else pattern
        patterns.append(exception + pattern)
    return patterns


def _clean(path: str) -> str:
    """The shortest equal path, by text alone: "a//b/../c" is "a/c"."""
    parts: list[str] = []
    for part in path.split("/"):
        if part == ".." and parts and parts[-1] != "..":
            parts.pop()
        elif part == ".." and path.startswith("/"):
            continue
        elif part not in ("", "."):
            parts.append(part)
    root = "/" if path.startswith("/") else ""
    return root + "/".join(parts) or "."


class IgnoreMatcher:
    """Tests paths against patterns. Raises DockerfileError for a pattern that is not well formed."""

    def __init__(self, patterns: Iterable[str]) -> None:
        self.patterns = [_pattern(_clean(trim(pattern))) for pattern in patterns if trim(pattern)]
        self.has_exceptions = any(pattern.is_exception for pattern in self.patterns)
        exceptions = [_without_trailing_glob(pattern.text) for pattern in self.patterns if pattern.is_exception]
        self._exceptions_anywhere = any("^" in text or _WILDCARDS.intersection(text) for text in exceptions)
        self._exception_prefixes = [text + "/" for text in exceptions]

    def ignores(self, path: str) -> bool:
        """Whether `path` is left out, its parents considered; above an absolute path are the empty one and, directly
        in the root, the root. It costs a test per pattern and parent."""
        parents = [path[:index] for index, char in enumerate(path) if char == "/"]
        parents += ["/"] if path.rfind("/") == 0 else []
        ignored = False
        for pattern in self.patterns:
            if pattern.is_exception == ignored and any(map(pattern.matches, (path, *parents))):
                ignored = not pattern.is_exception
        return ignored

    def match(self, path: str, parent: MatchState | None) -> tuple[bool, MatchState]:
        """Whether `path` is left out, and the state to hand in for what is below it; `parent` is the state of its
        directory, None at the top."""
        above = parent.matched if parent is not None else 0
        ignored = False
        matched = 0
        for index, pattern in enumerate(self.patterns):
            bit = 1 << index
            if above & bit or (pattern.is_exception == ignored and pattern.matches(path)):
                matched |= bit
                ignored = not pattern.is_exception
        return ignored, MatchState(matched)

    def may_have_exceptions_below(self, dirpath: str) -> bool:
        """Whether something in an ignored directory may be taken back in, so that it must be walked. The answer is
        by prefix for plain exceptions, and always yes if one has a wildcard elsewhere than at its end."""
        if self._exceptions_anywhere:
            return True
        prefix = dirpath + "/"
        return any(exception.startswith(prefix) for exception in self._exception_prefixes)


def _without_trailing_glob(text: str) -> str:
    return text.removesuffix("/**").removesuffix("/*")


def _pattern(text: str) -> IgnorePattern:
    is_exception = text.startswith("!")
    if text == "!":
        raise DockerfileError('ignore pattern "!" has nothing after the !')
    body = text[1:] if is_exception else text
    if not _is_well_formed(body):
        raise DockerfileError(
            f"ignore pattern {quoted(text)} is not well formed", hint="is a ] or a character missing?"
        )
    return IgnorePattern(body, is_exception, _test(body))


def _test(pattern: str) -> Callable[[str], bool]:
    """The quickest test that means the same as the pattern's regular expression."""
    if not _WILDCARDS.intersection(pattern):
        return pattern.__eq__
    head, tail = pattern[:-2], pattern[2:]
    if pattern == "**":
        return lambda _path: True
    if pattern.endswith("**") and not _WILDCARDS.intersection(head):
        return lambda path: path.startswith(head)
    if pattern.startswith("**") and not _WILDCARDS.intersection(tail):
        name = tail[1:] if tail.startswith("/") else None
        return lambda path: path.endswith(tail) or path == name
    return _Expression(pattern).matches


class _Expression:
    """A pattern that needs a regular expression; compiled at its first use, because most contexts never ask."""

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        self.test: Callable[[str], bool] | None = None

    def matches(self, path: str) -> bool:
        if self.test is None:
            from grammar.ignore_regex import BadPatternError, compile_go, go_expression

            try:
                self.test = compile_go(go_expression(self.pattern))
            except BadPatternError as error:
                raise DockerfileError(f"ignore pattern {quoted(self.pattern)} is not valid: {error}") from None
        return self.test(path)


def _is_well_formed(pattern: str) -> bool:
    """Whether Go's shell-style matcher accepts `pattern`: brackets closed and not empty, escapes not at the end.

    It is asked about the name `.`, and gives up at the first part between stars that does not fit: what is wrong in
    the parts behind it stays unseen."""
    for chunk in filter(None, _chunks(pattern)):
        if not _is_well_formed_chunk(chunk):
            return False
        if not _matches_dot(chunk):
            break
    return True


def _matches_dot(chunk: str) -> bool:
    """Whether a part that is well formed is one element that takes a dot."""
    if not chunk.startswith("["):
        return chunk in (".", "?", "\\.")
    if _behind_brackets(chunk, 1) != len(chunk):
        return False
    found, position = False, 1 + chunk.startswith("^", 1)
    while position < len(chunk) - 1:
        end = _behind_range_end(chunk, position)
        low = high = chunk[end - 1]
        if chunk.startswith("-", end):
            end = _behind_range_end(chunk, end + 1)
            high = chunk[end - 1]
        found, position = found or low <= "." <= high, end
    return found != chunk.startswith("^", 1)


def _chunks(pattern: str) -> list[str]:
    """The parts between stars outside brackets."""
    chunks = [""]
    in_brackets = False
    chars = iter(pattern)
    for char in chars:
        if char == "*" and not in_brackets:
            chunks.append("")
            continue
        in_brackets = char == "[" or (in_brackets and char != "]")
        chunks[-1] += char + (next(chars, "") if char == "\\" else "")
    return chunks


def _is_well_formed_chunk(chunk: str) -> bool:
    position = 0
    while position < len(chunk):
        char = chunk[position]
        position += 1
        if char == "\\":
            position += 1
        elif char == "[":
            position = _behind_brackets(chunk, position)
        if position > len(chunk):
            return False
    return True


def _behind_brackets(chunk: str, position: int) -> int:
    """The position behind the bracket expression whose `[` was just read; past the end if it is not well formed."""
    bad = len(chunk) + 1
    position += chunk.startswith("^", position)
    ranges = 0
    while position < len(chunk):
        if chunk[position] == "]" and ranges:
            return position + 1
        position = _behind_range_end(chunk, position)
        if chunk.startswith("-", position):
            position = _behind_range_end(chunk, position + 1)
        ranges += 1
    return bad


def _behind_range_end(chunk: str, position: int) -> int:
    char = chunk[position : position + 1]
    if char in ("", "-", "]"):
        return len(chunk) + 1
    position += 1 + (char == "\\")
    return position if position < len(chunk) else len(chunk) + 1
