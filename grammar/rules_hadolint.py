"""Rules that hadolint has and BuildKit has not, under hadolint's names: those that are about the Dockerfile itself.

They are off unless asked for. What they check is hadolint's; what they say is said here.
"""

from __future__ import annotations

from grammar.rules import Rule

_PAGES = "https://github.com/hadolint/hadolint/wiki/"


def _rule(name: str, description: str, message: str, *, bad: str, good: str, level: str = "warning") -> Rule:
    return Rule(name, description, message, bad, good, url=_PAGES + name, optional=True, level=level)


DL3000 = _rule(
    "DL3000",
    "A working directory should be absolute, so that it does not depend on the base image",
    "WORKDIR {} is not absolute",
    bad="FROM alpine:3.21\nWORKDIR /usr\nWORKDIR share\n",
    good="FROM alpine:3.21\nWORKDIR /usr/share\n",
    level="error",
)
DL3002 = _rule(
    "DL3002",
    "The last user of a stage should not be root",
    "the last USER of this stage is {}",
    bad="FROM alpine:3.21\nUSER root\nRUN apk upgrade\n",
    good="FROM alpine:3.21\nUSER root\nRUN apk upgrade\nUSER 1000\n",
)
DL3006 = _rule(
    "DL3006",
    "The version of a base image should be said",
    "image {} has no tag",
    bad="FROM debian\n",
    good="FROM debian:12\n",
)
DL3007 = _rule(
    "DL3007",
    "The tag latest means another image tomorrow",
    "image {} is pinned to no release",
    bad="FROM debian:latest\n",
    good="FROM debian:12\n",
)
DL3012 = _rule(
    "DL3012",
    "Only the last HEALTHCHECK of a stage counts",
    "{} is given more than once in this stage",
    bad="FROM alpine:3.21\nHEALTHCHECK NONE\nHEALTHCHECK CMD true\n",
    good="FROM alpine:3.21\nHEALTHCHECK CMD true\n",
    level="error",
)
DL3020 = _rule(
    "DL3020",
    "ADD is for archives and URLs; files and directories are copied with COPY",
    "ADD {} is neither an archive nor a URL",
    bad="FROM alpine:3.21\nADD app.conf /etc/\n",
    good="FROM alpine:3.21\nCOPY app.conf /etc/\n",
    level="error",
)
DL3021 = _rule(
    "DL3021",
    "Several sources need a directory as destination, which is written with a slash at its end",
    "destination {} of several sources has no slash at its end",
    bad="FROM alpine:3.21\nCOPY a b /etc\n",
    good="FROM alpine:3.21\nCOPY a b /etc/\n",
    level="error",
)
DL3022 = _rule(
    "DL3022",
    "COPY --from should name a stage that was defined before, or an image with its tag",
    "COPY --from={} names no stage defined before",
    bad="FROM alpine:3.21\nCOPY --from=nginx /etc/nginx /etc/nginx\n",
    good="FROM nginx:1.27 AS web\nFROM alpine:3.21\nCOPY --from=web /etc/nginx /etc/nginx\n",
)
DL3023 = _rule(
    "DL3023",
    "A stage cannot copy from itself",
    "COPY --from={} names its own stage",
    bad="FROM alpine:3.21 AS build\nCOPY --from=build /a /b\n",
    good="FROM alpine:3.21 AS build\nRUN cp /a /b\n",
    level="error",
)
DL3024 = _rule(
    "DL3024",
    "Names of stages should be unique",
    "stage name {} was used before",
    bad="FROM alpine:3.21 AS build\nFROM debian:12 AS build\n",
    good="FROM alpine:3.21 AS build\nFROM debian:12 AS package\n",
    level="error",
)
DL3025 = _rule(
    "DL3025",
    "A command in JSON form is executed without a shell, and so gets signals",
    "{} is not in JSON form",
    bad="FROM alpine:3.21\nHEALTHCHECK CMD check --quick\n",
    good='FROM alpine:3.21\nHEALTHCHECK CMD ["check", "--quick"]\n',
)
DL3029 = _rule(
    "DL3029",
    "A fixed platform keeps an image from being built for others",
    "FROM has a fixed --platform={}",
    bad="FROM --platform=linux/amd64 alpine:3.21\n",
    good="FROM --platform=$BUILDPLATFORM alpine:3.21\n",
)
DL3044 = _rule(
    "DL3044",
    "A variable cannot be used in the ENV that sets it: the line sees the value from before",
    "variable {} is set and used in one ENV",
    bad="FROM alpine:3.21\nENV HOME=/home/app CACHE=$HOME/.cache\n",
    good="FROM alpine:3.21\nENV HOME=/home/app\nENV CACHE=$HOME/.cache\n",
    level="error",
)
DL3045 = _rule(
    "DL3045",
    "A relative destination needs a WORKDIR in the same file",
    "destination {} is relative, and no WORKDIR was set",
    bad="FROM alpine:3.21\nCOPY app.conf etc/\n",
    good="FROM alpine:3.21\nWORKDIR /srv\nCOPY app.conf etc/\n",
)
DL3048 = _rule(
    "DL3048",
    "Keys of labels are lower-case words with dots, dashes, underscores and slashes between them, outside of Docker's "
    "own namespaces",
    "label key {} is not well formed",
    bad="FROM alpine:3.21\nLABEL +Vendor=example\n",
    good="FROM alpine:3.21\nLABEL com.example.vendor=example\n",
    level="note",
)
DL3057 = _rule(
    "DL3057",
    "A stage should say how its health is checked",
    "stage {} has no HEALTHCHECK",
    bad='FROM alpine:3.21\nCMD ["serve"]\n',
    good='FROM alpine:3.21\nHEALTHCHECK CMD ["check"]\nCMD ["serve"]\n',
    level="note",
)
DL3063 = _rule(
    "DL3063",
    "Reserved words should not be names of stages",
    "stage name {} is a reserved word",
    bad="FROM alpine:3.21 AS context\n",
    good="FROM alpine:3.21 AS sources\n",
)
DL3064 = _rule(
    "DL3064",
    "What may be secret should be neither in ARG nor in ENV: both stay in the image",
    "{} sounds like a secret",
    bad="FROM alpine:3.21\nARG DB_USERNAME\n",
    good="FROM alpine:3.21\nRUN --mount=type=secret,id=db connect\n",
)
DL3065 = _rule(
    "DL3065",
    "The target platform is what FROM has anyway",
    "FROM --platform={} says what is the default",
    bad="FROM --platform=$TARGETPLATFORM alpine:3.21\n",
    good="FROM alpine:3.21\n",
)
DL3066 = _rule(
    "DL3066",
    "A user by number is the same on the host, a name may not be known there",
    "USER {} is not a number",
    bad="FROM alpine:3.21\nUSER app\n",
    good="FROM alpine:3.21\nUSER 1000:1000\n",
    level="note",
)
DL3067 = _rule(
    "DL3067",
    "All files of another stage should not be copied: the stage can be the base instead",
    "COPY --from={} copies a whole file system",
    bad="FROM alpine:3.21 AS build\nFROM scratch\nCOPY --from=build / /\n",
    good="FROM alpine:3.21 AS build\nFROM scratch\nCOPY --from=build /out /\n",
)

RULES = (
    DL3000, DL3002, DL3006, DL3007, DL3012, DL3020, DL3021, DL3022, DL3023, DL3024, DL3025, DL3029, DL3044, DL3045,
    DL3048, DL3057, DL3063, DL3064, DL3065, DL3066, DL3067,
)  # fmt: skip

_SHELL = "needs a shell parser: it is about the commands of RUN"
_SCHEMA = "needs a list of labels that hadolint takes from its configuration"
_REFUSED = "not a rule here: such a Dockerfile is refused, with an error at the line"

NOT_IMPLEMENTED = {
    **dict.fromkeys(("DL3001", "DL3003", "DL3004", "DL3008", "DL3009", "DL3010"), _SHELL),
    **dict.fromkeys(("DL3013", "DL3014", "DL3015", "DL3016", "DL3018", "DL3019", "DL3027", "DL3028"), _SHELL),
    **dict.fromkeys(("DL3030", "DL3032", "DL3033", "DL3034", "DL3035", "DL3036", "DL3037", "DL3038"), _SHELL),
    **dict.fromkeys(("DL3040", "DL3041", "DL3042", "DL3046", "DL3047", "DL3059", "DL3060", "DL3062"), _SHELL),
    **dict.fromkeys(("DL3011", "DL3043", "DL3061"), _REFUSED),
    "DL3026": "needs a list of registries that hadolint takes from its configuration",
    **dict.fromkeys(("DL3049", "DL3050", "DL3051", "DL3052", "DL3053"), _SCHEMA),
    **dict.fromkeys(("DL3054", "DL3055", "DL3056", "DL3058"), _SCHEMA),
}
"""hadolint's other rules from DL3000 to DL3067, and why they are not here."""
