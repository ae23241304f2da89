"""Findings of the linter as a build shows them: warnings of its Plan, or the error that stops it.

Source: BuildKit, `# check=error=true`.
"""

from __future__ import annotations

from builder.errors import BuildError, Location
from builder.frontend_options import CHECK_ARG
from builder.options import BuildOptions
from builder.plan import PlanWarning
from grammar.lint import Linter, file_config, parse_check


def make_linter(source: bytes, options: BuildOptions) -> Linter:
    """The linter that a Dockerfile or its build argument asks for. Raises DockerfileError."""
    given = options.build_args.get(CHECK_ARG)
    return Linter(file_config(source) if given is None else parse_check(given))


def plan_warnings(linter: Linter, filename: str) -> tuple[PlanWarning, ...]:
    """All findings, in the order of their lines."""
    return tuple(
        PlanWarning(found.rule.name, found.message, Location(filename, found.range.start_line, found.range.end_line))
        for found in sorted(linter.findings, key=lambda found: found.key)
    )


def lint_error(linter: Linter, filename: str) -> BuildError | None:
    """The error that findings are, where they are errors."""
    names = linter.violated_rules
    if not names:
        return None
    lines = [
        f"{filename}:{warning.location.start_line if warning.location else 0}: {warning.rule}: {warning.message}"
        for warning in plan_warnings(linter, filename)
    ]
    return BuildError(
        f"lint violation found for rules: {', '.join(names)}",
        hint="# check=error=true makes an error of every finding; # check=skip=RULE leaves a rule out",
        output="\n".join(lines),
    )
