from __future__ import annotations

import pytest

from grammar.errors import DockerfileError
from grammar.format import format_dockerfile


def canonical(text: str) -> str:
    once = format_dockerfile(text.encode("utf-8", "surrogateescape"))
    assert format_dockerfile(once) == once
    return once.decode("utf-8", "surrogateescape")


def instruction(text: str) -> str:
    """`text` formatted as the only instruction of a stage."""
    return canonical(f"FROM a\n{text}\n").removeprefix("FROM a\n").removesuffix("\n")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("run   echo  a", "RUN echo  a"),
        ("  user\troot  ", "USER root"),
        ("onbuild copy  a  b", "ONBUILD COPY a b"),
        ("healthcheck none", "HEALTHCHECK NONE"),
        ("healthcheck --retries=1  cmd a  b", "HEALTHCHECK --retries=1 CMD a  b"),
        ("expose 80\t90", "EXPOSE 80 90"),
        ("env a  b  c", "ENV a  b  c"),
        ('cmd [ "a",\t"b" ]', 'CMD [ "a",\t"b" ]'),
    ],
)
def test_one_line(text: str, expected: str) -> None:
    assert instruction(text) == expected


def test_from_has_its_as_in_upper_case_also_on_the_next_line() -> None:
    assert canonical("from  a  as  B\n") == "FROM a AS B\n"
    assert canonical("FROM --platform=$P \\\n a \\\n as \\\n b\n") == (
        "FROM --platform=$P \\\n    a \\\n    AS \\\n    b\n"
    )


def test_a_stage_named_as_stays() -> None:
    assert canonical("FROM as AS as\n") == "FROM as AS as\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("FROM a\nFROM b\n", "FROM a\n\nFROM b\n"),
        ("FROM a\n# of b\n# too\nFROM b\n", "FROM a\n\n# of b\n# too\nFROM b\n"),
        ("FROM a\n# of a\n\n# of b\nFROM b\n", "FROM a\n# of a\n\n# of b\nFROM b\n"),
        ("FROM a\n\n\n\nRUN x\n\n\n", "FROM a\n\nRUN x\n"),
        ("\n\n ARG a\nFROM b", "ARG a\nFROM b\n"),
        ("# c\n\n\n# d  \nFROM a\n# end\n\n", "# c\n\n# d\nFROM a\n# end\n"),
        ("FROM a\r\nRUN b \\\r\n  c\r\n", "FROM a\nRUN b \\\n    c\n"),
        ("\ufeffFROM a\n", "FROM a\n"),
    ],
)
def test_lines_between_instructions(text: str, expected: str) -> None:
    assert canonical(text) == expected


def test_the_indentation_of_a_comment_above_an_instruction_is_a_part_of_it() -> None:
    assert canonical("  # x described\nFROM a AS x\n") == "  # x described\nFROM a AS x\n"


@pytest.mark.parametrize("top", ["# escape=`\n", "# syntax=x\n# check=skip=all\n", "#!/bin/x\n# syntax=y\n"])
def test_directives_stay_and_no_comment_becomes_one(top: str) -> None:
    assert canonical(f"{top}\n\nFROM a\n") == f"{top}\nFROM a\n"
    assert canonical(f"\n\n{top}FROM a\n") == f"\n{top}FROM a\n"


def test_continuation_lines_keep_their_depth_relative_to_each_other() -> None:
    text = "RUN a && \\\n\tif b; then \\\n\t\tc; \\\n\tfi\n"
    assert canonical("FROM x\n" + text) == "FROM x\nRUN a && \\\n    if b; then \\\n        c; \\\n    fi\n"


def test_comments_inside_an_instruction_move_with_it_and_empty_lines_go() -> None:
    assert instruction("RUN a \\\n# why\n\n  b \\\n  \\\n  c") == ("RUN a \\\n    # why\n    b \\\n    \\\n    c")


def test_a_continuation_of_nothing_goes() -> None:
    assert canonical("FROM a\nRUN b \\\n") == "FROM a\nRUN b\n"
    assert canonical("FROM a\nRUN b \\\n# c\n") == "FROM a\nRUN b\n# c\n"


@pytest.mark.parametrize(
    "text",
    [
        'RUN echo "a \\\n b"',
        "RUN echo 'a \\\n b'",
        "RUN a\\\nb",
        "RUN a\\ \\\nb",
        "RUN `a \\\n  b`",
        "RUN $'a\\'' \\\n  b",
        'RUN a "${b:-c \\\n  d}"',
        'RUN "$(a ${b:-"c"} \\\n  d)"',
        "RUN $(case a in a) b \\\n  c;; esac)",
        "RUN a # b \\\n  c",
        "ENV a b \\\n  c",
        'ENV a="b \\\n  c"',
        "WORKDIR /a \\\n  b",
        'CMD ["a \\\n  b"]',
        "CO\\\nPY a b",
        "COPY --li\\\nnk a b",
        "COPY a\\\nb c",
    ],
)
def test_what_might_matter_is_left_as_it_is(text: str) -> None:
    assert instruction(text) == text


def test_shell_text_is_left_where_the_shell_is_not_known() -> None:
    text = 'SHELL ["powershell", "-c"]\nRUN a \\\n  b'
    assert instruction(text) == text
    text = "# escape=`\nFROM a\nRUN a `\n  b\n"
    assert canonical(text) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('RUN "a b" \\\nc', 'RUN "a b" \\\n    c'),
        ('RUN "$(a "b c")" \\\n c', 'RUN "$(a "b c")" \\\n    c'),
        ("RUN $((1 + 2)) ${#a} \\\n  c", "RUN $((1 + 2)) ${#a} \\\n    c"),
        ('RUN "a \\\nb" && \\\nc', 'RUN "a \\\nb" && \\\n    c'),
        ("ENV a=1\\\n  b='2 3' \\\n  c=4", "ENV a=1 \\\n    b='2 3' \\\n    c=4"),
        ("LABEL a=1 \\\n      b=2 \\\n      c=3", "LABEL a=1 \\\n    b=2 \\\n    c=3"),
        ("COPY a   \\\n  b \\\n# c\n   /d", "COPY a \\\n    b \\\n    # c\n    /d"),
        ('CMD [ "a", \\\n"b" ]', 'CMD [ "a", \\\n    "b" ]'),
    ],
)
def test_lines_that_move(text: str, expected: str) -> None:
    assert instruction(text) == expected


FLAGS = ["--mount=type=cache,target=/var/cache/apt,sharing=locked", "--mount=type=cache,target=/var/lib/apt"]


def test_flags_stand_one_per_line_when_their_line_is_too_long() -> None:
    one, two = FLAGS
    assert instruction(f"RUN {one} {two} true") == f"RUN {one} \\\n    {two} \\\n    true"
    assert instruction(f"RUN {one}   \\\n{two} true") == f"RUN {one} \\\n    {two} true"
    assert instruction(f"COPY --from=b {'a' * 100} /x") == f"COPY --from=b \\\n    {'a' * 100} /x"


def test_a_line_is_not_split_where_the_rest_would_be_a_comment() -> None:
    text = f"COPY --from={'b' * 100} #a /x"
    assert instruction(text) == text


def test_heredoc_bodies_are_not_touched() -> None:
    text = "run <<-EOF cat <<'X' && \\\n  b\n\t  a  \r\n\tEOF\r\n# no comment\n\n\nX\nUSER a"
    assert instruction(text) == ("RUN <<-EOF cat <<'X' && \\\n    b\n\t  a  \r\n\tEOF\n# no comment\n\n\nX\nUSER a")


def test_bytes_that_are_no_text_survive() -> None:
    assert instruction("run \udcff\udc80 \\\n \udcfe") == "RUN \udcff\udc80 \\\n    \udcfe"


def test_what_is_no_dockerfile_is_refused() -> None:
    with pytest.raises(DockerfileError, match="unknown instruction"):
        format_dockerfile(b"FROM a\nNOPE\n")
