"""The lint rules of a Dockerfile's own front end, as values: what each says, and an example of bad and good.

Names, descriptions and messages are BuildKit's, so that `# check=skip=…` and other tools mean the same. It does not
know how a rule is checked.
"""

from __future__ import annotations

from dataclasses import dataclass

_PAGES = "https://docs.docker.com/go/dockerfile/rule/"


@dataclass(frozen=True, slots=True)
class Rule:
    """One thing that is remarked on."""

    name: str
    description: str
    message: str
    """What a finding says; `{}` stands for the values of the case."""
    bad: str
    """A Dockerfile that gives just this finding."""
    good: str
    """The same without it."""
    url: str = ""
    experimental: bool = False
    """Off unless `experimental=` asks for it."""
    optional: bool = False
    """Off unless `--rules` asks for it."""
    level: str = "warning"
    """`error`, `warning` or `note`."""
    is_fixable: bool = False
    ignorefile: str = ""
    """The .dockerignore that the examples are read with."""


STAGE_NAME_CASING = Rule(
    "StageNameCasing",
    "Stage names should be lowercase",
    "Stage name '{}' should be lowercase",
    bad="FROM alpine AS BuildBase\n",
    good="FROM alpine AS build-base\n",
    url=_PAGES + "stage-name-casing/",
    is_fixable=True,
)
FROM_AS_CASING = Rule(
    "FromAsCasing",
    "The 'as' keyword should match the case of the 'from' keyword",
    "'{}' and '{}' keywords' casing do not match",
    bad="FROM alpine as build\n",
    good="FROM alpine AS build\n",
    url=_PAGES + "from-as-casing/",
    is_fixable=True,
)
NO_EMPTY_CONTINUATION = Rule(
    "NoEmptyContinuation",
    "Empty continuation lines will become errors in a future release",
    "Empty continuation line",
    bad="FROM alpine\nRUN apk add \\\n\n    curl\n",
    good="FROM alpine\nRUN apk add \\\n    # to fetch sources\n    curl\n",
    url=_PAGES + "no-empty-continuation/",
    is_fixable=True,
)
CONSISTENT_INSTRUCTION_CASING = Rule(
    "ConsistentInstructionCasing",
    "All commands within the Dockerfile should use the same casing (either upper or lower)",
    "Command '{}' should match the case of the command majority ({})",
    bad="FROM alpine\nRUN make\nrun make install\n",
    good="FROM alpine\nRUN make\nRUN make install\n",
    url=_PAGES + "consistent-instruction-casing/",
    is_fixable=True,
)
DUPLICATE_STAGE_NAME = Rule(
    "DuplicateStageName",
    "Stage names should be unique",
    'Duplicate stage name "{}", stage names should be unique',
    bad="FROM alpine AS build\nFROM debian AS build\n",
    good="FROM alpine AS build\nFROM debian AS deploy\n",
    url=_PAGES + "duplicate-stage-name/",
)
RESERVED_STAGE_NAME = Rule(
    "ReservedStageName",
    "Reserved words should not be used as stage names",
    'Stage name should not use the same name as reserved stage "{}"',
    bad="FROM alpine AS scratch\n",
    good="FROM alpine AS base\n",
    url=_PAGES + "reserved-stage-name/",
)
JSON_ARGS_RECOMMENDED = Rule(
    "JSONArgsRecommended",
    "JSON arguments recommended for ENTRYPOINT/CMD to prevent unintended behavior related to OS signals",
    "JSON arguments recommended for {} to prevent unintended behavior related to OS signals",
    bad="FROM alpine\nENTRYPOINT my-program start\n",
    good='FROM alpine\nENTRYPOINT ["my-program", "start"]\n',
    url=_PAGES + "json-args-recommended/",
)
MAINTAINER_DEPRECATED = Rule(
    "MaintainerDeprecated",
    "The MAINTAINER instruction is deprecated, use a label instead to define an image author",
    "Maintainer instruction is deprecated in favor of using label",
    bad="FROM alpine\nMAINTAINER moby@example.com\n",
    good="FROM alpine\nLABEL org.opencontainers.image.authors=moby@example.com\n",
    url=_PAGES + "maintainer-deprecated/",
    is_fixable=True,
)
UNDEFINED_ARG_IN_FROM = Rule(
    "UndefinedArgInFrom",
    "FROM command must use declared ARGs",
    "FROM argument '{}' is not declared",
    bad="FROM alpine:3.21${VARIANT}\n",
    good="ARG VARIANT\nFROM alpine:3.21${VARIANT}\n",
    url=_PAGES + "undefined-arg-in-from/",
)
WORKDIR_RELATIVE_PATH = Rule(
    "WorkdirRelativePath",
    "Relative workdir without an absolute workdir declared within the build can have unexpected results if the base "
    "image changes",
    "Relative workdir {} can have unexpected results if the base image changes",
    bad="FROM alpine\nWORKDIR usr/share\n",
    good="FROM alpine\nWORKDIR /usr/share\n",
    url=_PAGES + "workdir-relative-path/",
)
UNDEFINED_VAR = Rule(
    "UndefinedVar",
    "Variables should be defined before their use",
    "Usage of undefined variable '${}'",
    bad="FROM alpine\nCOPY $source /app/\n",
    good="FROM alpine\nARG source\nCOPY $source /app/\n",
    url=_PAGES + "undefined-var/",
)
MULTIPLE_INSTRUCTIONS_DISALLOWED = Rule(
    "MultipleInstructionsDisallowed",
    "Multiple instructions of the same type should not be used in the same stage",
    "Multiple {} instructions should not be used in the same stage because only the last one will be used",
    bad='FROM alpine\nCMD ["one"]\nCMD ["two"]\n',
    good='FROM alpine\nCMD ["two"]\n',
    url=_PAGES + "multiple-instructions-disallowed/",
)
LEGACY_KEY_VALUE_FORMAT = Rule(
    "LegacyKeyValueFormat",
    "Legacy key/value format with whitespace separator should not be used",
    '"{0} key=value" should be used instead of legacy "{0} key value" format',
    bad="FROM alpine\nENV DIR /my-dir\n",
    good="FROM alpine\nENV DIR=/my-dir\n",
    url=_PAGES + "legacy-key-value-format/",
    is_fixable=True,
)
INVALID_BASE_IMAGE_PLATFORM = Rule(
    "InvalidBaseImagePlatform",
    "Base image platform does not match expected target platform",
    "Base image {} was pulled with platform {}, expected {} for current build",
    bad="FROM example/arm64-only\n",
    good="FROM example/every-platform\n",
)
REDUNDANT_TARGET_PLATFORM = Rule(
    "RedundantTargetPlatform",
    "Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior",
    "Setting platform to predefined {} in FROM is redundant as this is the default behavior",
    bad="FROM --platform=$TARGETPLATFORM alpine\n",
    good="FROM alpine\n",
    url=_PAGES + "redundant-target-platform/",
)
SECRETS_USED_IN_ARG_OR_ENV = Rule(
    "SecretsUsedInArgOrEnv",
    "Sensitive data should not be used in the ARG or ENV commands",
    "Do not use ARG or ENV instructions for sensitive data ({} {})",
    bad="FROM alpine\nARG AWS_SECRET_ACCESS_KEY\nRUN aws s3 sync s3://bucket .\n",
    good="FROM alpine\nRUN --mount=type=secret,id=aws,env=AWS_SECRET_ACCESS_KEY aws s3 sync s3://bucket .\n",
    url=_PAGES + "secrets-used-in-arg-or-env/",
)
INVALID_DEFAULT_ARG_IN_FROM = Rule(
    "InvalidDefaultArgInFrom",
    "Default value for global ARG results in an empty or invalid base image name",
    "Default value for ARG {} results in empty or invalid base image name",
    bad="ARG TAG\nFROM busybox:${TAG}\n",
    good="ARG TAG=latest\nFROM busybox:${TAG}\n",
    url=_PAGES + "invalid-default-arg-in-from/",
)
FROM_PLATFORM_FLAG_CONST_DISALLOWED = Rule(
    "FromPlatformFlagConstDisallowed",
    "FROM --platform flag should not use a constant value",
    "FROM --platform flag should not use constant value {}",
    bad="FROM --platform=linux/amd64 alpine\n",
    good="FROM --platform=$BUILDPLATFORM alpine\n",
    url=_PAGES + "from-platform-flag-const-disallowed/",
)
COPY_IGNORED_FILE = Rule(
    "CopyIgnoredFile",
    "Attempting to Copy file that is excluded by .dockerignore",
    "Attempting to {} file {} that is excluded by .dockerignore",
    bad="FROM scratch\nCOPY tmp/cache /cache\n",
    good="FROM scratch\nCOPY src /src\n",
    url=_PAGES + "copy-ignored-file/",
    ignorefile="tmp\n",
)
INVALID_DEFINITION_DESCRIPTION = Rule(
    "InvalidDefinitionDescription",
    "Comment for build stage or argument should follow the format: `# <arg/stage name> <description>`. If this is not "
    "intended to be a description comment, add an empty line or comment between the instruction and the comment.",
    "Comment for {} should follow the format: `# {} <description>`",
    bad="# the version to build\nARG VERSION=1\nFROM scratch\n",
    good="# VERSION is the version to build\nARG VERSION=1\nFROM scratch\n",
    url=_PAGES + "invalid-definition-description/",
    experimental=True,
)
EXPOSE_PROTO_CASING = Rule(
    "ExposeProtoCasing",
    "Protocol in EXPOSE instruction should be lowercase",
    "Defined protocol '{}' in EXPOSE instruction should be lowercase",
    bad="FROM alpine\nEXPOSE 80/TcP\n",
    good="FROM alpine\nEXPOSE 80/tcp\n",
    url=_PAGES + "expose-proto-casing/",
    is_fixable=True,
)
EXPOSE_INVALID_FORMAT = Rule(
    "ExposeInvalidFormat",
    "IP address and host-port mapping should not be used in EXPOSE instruction. This will become an error in a future "
    "release",
    "EXPOSE instruction should not define an IP address or host-port mapping, found '{}'",
    bad="FROM alpine\nEXPOSE 127.0.0.1:80:80\n",
    good="FROM alpine\nEXPOSE 80\n",
    url=_PAGES + "expose-invalid-format/",
)

RULES = (
    STAGE_NAME_CASING,
    FROM_AS_CASING,
    NO_EMPTY_CONTINUATION,
    CONSISTENT_INSTRUCTION_CASING,
    DUPLICATE_STAGE_NAME,
    RESERVED_STAGE_NAME,
    JSON_ARGS_RECOMMENDED,
    MAINTAINER_DEPRECATED,
    UNDEFINED_ARG_IN_FROM,
    WORKDIR_RELATIVE_PATH,
    UNDEFINED_VAR,
    MULTIPLE_INSTRUCTIONS_DISALLOWED,
    LEGACY_KEY_VALUE_FORMAT,
    INVALID_BASE_IMAGE_PLATFORM,
    REDUNDANT_TARGET_PLATFORM,
    SECRETS_USED_IN_ARG_OR_ENV,
    INVALID_DEFAULT_ARG_IN_FROM,
    FROM_PLATFORM_FLAG_CONST_DISALLOWED,
    COPY_IGNORED_FILE,
    INVALID_DEFINITION_DESCRIPTION,
    EXPOSE_PROTO_CASING,
    EXPOSE_INVALID_FORMAT,
)
