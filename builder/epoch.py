"""SOURCE_DATE_EPOCH: seconds since 1970, or where to take them from: the context, a named one, or a stage.

Source: BuildKit's behaviour. `context` is the main context; like a named one it is as old as its commit (git) or as the
server says (http; else as the youngest file of the archive). A stage that gives the time holds one ADD from elsewhere
on scratch. What nobody dates, such as a directory, leaves the variable unset.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from builder.args import GlobalArgs
from builder.errors import BuildError, Location
from builder.options import BuildOptions
from builder.plan import GitSourceOp, HttpSourceOp
from builder.remote import git_ref, git_source, http_source, is_url
from builder.sources import SourceResolver
from builder.stage import at
from cache.namedtuple import NamedTuple
from grammar.nodes import AddInstruction, ArgInstruction, Dockerfile, Stage
from grammar.platforms import Platform
from grammar.words import Lexer

NAME = "SOURCE_DATE_EPOCH"
_SECONDS = re.compile("[+-]?[0-9]{1,18}")
_ONE_ADD = "SOURCE_DATE_EPOCH stage must contain exactly one remote ADD"


class Epoch(NamedTuple):
    """What it came to, and the options and the ARGs that say so in numbers."""

    seconds: int | None
    options: BuildOptions
    arguments: GlobalArgs


def resolve_epoch(
    dockerfile: Dockerfile, options: BuildOptions, arguments: GlobalArgs, resolver: SourceResolver, default: Platform
) -> Epoch:
    """The time that --build-arg, or an ARG before the first FROM, names. Raises BuildError for what is no time."""
    given = options.build_args.get(NAME)
    text = arguments.values.get(NAME, "") if given is None else given
    if not text:
        return Epoch(None, options, arguments)
    if _SECONDS.fullmatch(text):
        seconds: int | None = int(text)
    else:
        seconds = _seconds_of(text, dockerfile, options, arguments.values, resolver=resolver, default=default)
    build_args, values = (_with(seconds, each) for each in (options.build_args, arguments.values))
    return Epoch(seconds, options._replace(build_args=build_args), arguments._replace(values=values))


def _with(seconds: int | None, values: Mapping[str, str]) -> dict[str, str]:
    """The variable in numbers where it is set; not set at all when there is no time."""
    if seconds is None:
        return {key: value for key, value in values.items() if key != NAME}
    return {key: str(seconds) if key == NAME else value for key, value in values.items()}


def _seconds_of(
    text: str,
    dockerfile: Dockerfile,
    options: BuildOptions,
    values: Mapping[str, str],
    *,
    resolver: SourceResolver,
    default: Platform,
) -> int | None:
    if text == "context" or resolver.named_context(text, default) is not None:
        return resolver.context_time(text)
    for stage in dockerfile.stages:
        if stage.name == text.lower():
            with at(Location(dockerfile.filename, stage.range.start_line, stage.range.end_line)):
                return resolver.source_time(_source(stage, options, values, Lexer(dockerfile.escape)))
    raise BuildError(
        f"invalid SOURCE_DATE_EPOCH: {text}", hint='it is a number of seconds since 1970, "context", or a stage\'s name'
    )


def _source(stage: Stage, options: BuildOptions, values: Mapping[str, str], lexer: Lexer) -> GitSourceOp | HttpSourceOp:
    """What the one ADD of a stage reads."""
    env = {key: value for key, value in values.items() if key != NAME}
    if lexer.process_word(stage.base, env) != "scratch":
        raise BuildError("SOURCE_DATE_EPOCH stage must use FROM scratch")
    found: GitSourceOp | HttpSourceOp | None = None
    for instruction in stage.commands:
        if isinstance(instruction, ArgInstruction):
            env.update(_declared(instruction, options, env, lexer))
        elif not isinstance(instruction, AddInstruction):
            name = instruction.keyword.lower()
            raise BuildError(
                f"SOURCE_DATE_EPOCH stage does not meet source-only requirements: unsupported {name} instruction"
            )
        elif found is not None:
            raise BuildError(_ONE_ADD)
        else:
            found = _added(instruction, env, lexer)
    if found is None:
        raise BuildError(_ONE_ADD)
    return found


def _declared(
    instruction: ArgInstruction, options: BuildOptions, env: Mapping[str, str], lexer: Lexer
) -> dict[str, str]:
    declared: dict[str, str] = {}
    for pair in instruction.args:
        if pair.key in options.build_args:
            declared[pair.key] = options.build_args[pair.key]
        elif pair.value is not None:
            declared[pair.key] = lexer.process_word(pair.value, {**env, **declared})
    return declared


def _added(instruction: AddInstruction, env: Mapping[str, str], lexer: Lexer) -> GitSourceOp | HttpSourceOp:
    if instruction.contents or len(instruction.sources) != 1:
        raise BuildError(_ONE_ADD + " source")
    text = lexer.process_word(instruction.sources[0], env)
    checksum = lexer.process_word(instruction.checksum, env)
    if is_url(text):
        return http_source(text, checksum)
    ref = git_ref(text)
    if ref is None or ref.is_like_local:
        raise BuildError("SOURCE_DATE_EPOCH stage source must be a single HTTP(S) or Git ADD")
    return git_source(ref, checksum, keep_git_dir=instruction.keep_git_dir)
