"""What `--cache-from` and `--cache-to` say: a type and its attributes, as `docker buildx build` spells them.

Text in, values out; every name and value is checked here, nothing is opened. Credentials stand in some values: messages
repeat the name of an attribute and never the whole text.
"""

from __future__ import annotations

from collections.abc import Mapping

from builder.errors import UsageError
from builder.export.pack import Compression
from cache.namedtuple import NamedTuple

_COMPRESSION = ("compression", "compression-level", "force-compression")
_COMMON_TO = ("mode", "ignore-error", "mounts")
_MANIFEST = ("oci-mediatypes", "image-manifest")
_COMMON_FROM = ("trust", "sample")
_S3 = (
    *("bucket", "region", "name", "prefix", "blobs_prefix", "manifests_prefix", "endpoint_url", "use_path_style"),
    *("access_key_id", "secret_access_key", "session_token", "retry_mode", "retry_attempts"),
)
_FROM: dict[str, tuple[str, ...]] = {
    "local": ("src", "tag", "digest", "mounts", *_COMMON_FROM),
    "registry": ("ref", "registry.insecure", "mounts", *_COMMON_FROM),
    "s3": (*_S3, "mounts", *_COMMON_FROM),
}
_TO: dict[str, tuple[str, ...]] = {
    "local": ("dest", "tag", "reset", *_MANIFEST, *_COMPRESSION, *_COMMON_TO),
    "registry": ("ref", "registry.insecure", *_MANIFEST, *_COMPRESSION, *_COMMON_TO),
    "inline": ("mode",),
    "s3": (*_S3, "upload_parallelism", "touch_refresh", *_COMPRESSION, *_COMMON_TO),
}
_REQUIRED = {
    "from": {"local": "src", "registry": "ref", "s3": "bucket"},
    "to": {"local": "dest", "registry": "ref", "s3": "bucket"},
}
_ELSEWHERE = {
    "gha": "keep it in a registry: type=registry,ref=ghcr.io/OWNER/REPOSITORY:cache",
    "azblob": "keep it in a registry, or in a bucket with type=s3",
}
_COMPRESSIONS = {"gzip": (0, 9), "zstd": (0, 22), "uncompressed": None}
_SECRET = ("access_key_id", "secret_access_key", "session_token")
TRUSTS = ("full", "read-only", "verify")


class CacheSpec(NamedTuple):
    """One `--cache-from` or `--cache-to`. `attributes` are those of its type only, by their names."""

    type: str
    attributes: Mapping[str, str]
    mode: str = "min"
    compression: Compression = Compression()
    ignore_error: bool = False
    mounts: bool = False
    trust: str = "full"
    sample: float = 1.0
    """Of the hits of a cache that is to be verified: the part that is run again."""

    @property
    def name(self) -> str:
        """What messages call it; nothing secret is in it. The same place has the same name."""
        place = ",".join(f"{key}={value}" for key, value in sorted(self.attributes.items()) if key not in _SECRET)
        return f"type={self.type},{place}" if place else f"type={self.type}"

    def flag(self, key: str, default: bool = False) -> bool:
        """An attribute that is true or false; it was checked."""
        return _truth(self.attributes[key]) is True if key in self.attributes else default


def parse_cache(text: str, direction: str) -> CacheSpec:
    """What one value of `--cache-from` ("from") or `--cache-to` ("to") asks for. UsageError names what is wrong.

    `type=registry,ref=NAME` in CSV; a bare name is a registry's.
    """
    fields = _fields(text, direction)
    attributes: dict[str, str] = {}
    if len(fields) == 1 and "=" not in fields[0]:
        attributes = {"type": fields[0]} if fields[0] in (*_TO, *_ELSEWHERE) else {"type": "registry", "ref": fields[0]}
    else:
        for field in fields:
            key, equals, value = field.partition("=")
            if not equals:
                raise UsageError(f"--cache-{direction}: {field!r} is not key=value", hint=_example(direction))
            attributes[key.strip().lower()] = value
    return _Reader(direction, attributes).spec()


def _fields(text: str, direction: str) -> list[str]:
    import csv

    try:
        rows = list(csv.reader([text], strict=True))
    except csv.Error as error:
        raise UsageError(f"--cache-{direction} is not valid CSV: {error}") from error
    if len(rows) != 1 or not rows[0]:
        raise UsageError(f"--cache-{direction} is empty", hint=_example(direction))
    return rows[0]


def _example(direction: str) -> str:
    return "for example type=registry,ref=registry.example/app:cache" + (",mode=max" if direction == "to" else "")


class _Reader:
    """The attributes of one value while they are read."""

    def __init__(self, direction: str, attributes: dict[str, str]) -> None:
        self.direction, self.attributes = direction, attributes
        self.allowed = _TO if direction == "to" else _FROM
        self.kind = attributes.pop("type", "")

    def spec(self) -> CacheSpec:
        self._check_kind()
        for key in self.attributes:
            if key not in self.allowed[self.kind]:
                self._refuse(key)
        needed = _REQUIRED[self.direction].get(self.kind)
        if needed and not self.attributes.get(needed):
            self.fail(f"{needed} is required for type {self.kind}")
        if self._flag("oci-mediatypes", True) is False or self._flag("image-manifest", True) is False:
            self.fail("a cache is written as an OCI image manifest only", "leave out oci-mediatypes and image-manifest")
        for key in ("registry.insecure", "use_path_style", "reset"):
            self._flag(key, False)
        trust = self._choice("trust", TRUSTS, "full")
        mounts = self._flag("mounts", False)
        if mounts and trust != "full":
            self.fail("mounts=true needs trust=full", "what is in a cache mount decides what a step does")
        if "sample" in self.attributes and trust != "verify":
            self.fail("sample needs trust=verify")
        own = {key: value for key, value in self.attributes.items() if key in _PLACE}
        return CacheSpec(
            type=self.kind,
            attributes=own,
            mode=self._choice("mode", ("min",) if self.kind == "inline" else ("min", "max"), "min"),
            compression=self._compression(),
            ignore_error=self._flag("ignore-error", False),
            mounts=mounts,
            trust=trust,
            sample=self._sample(),
        )

    def fail(self, problem: str, hint: str | None = None) -> None:
        raise UsageError(f"--cache-{self.direction} type={self.kind}: {problem}", hint=hint)

    def _check_kind(self) -> None:
        if self.kind in self.allowed:
            return
        option = f"--cache-{self.direction}"
        if self.kind in _ELSEWHERE:
            raise UsageError(f"{option}: type={self.kind} is not supported", hint=_ELSEWHERE[self.kind])
        if self.kind == "inline":
            raise UsageError(f"{option}: type=inline is for --cache-to", hint="read it with type=registry,ref=IMAGE")
        problem = f"unknown type {self.kind!r}" if self.kind else "the type is missing"
        hint = _near(self.kind, self.allowed) or _example(self.direction)
        raise UsageError(f"{option}: {problem}, allowed are {', '.join(self.allowed)}", hint=hint)

    def _refuse(self, key: str) -> None:
        allowed = self.allowed[self.kind]
        elsewhere = _FROM if self.direction == "to" else _TO
        if key in elsewhere.get(self.kind, ()):
            other = "from" if self.direction == "to" else "to"
            self.fail(f"attribute {key!r} is for --cache-{other}")
        self.fail(f"unknown attribute {key!r}, allowed: {', '.join(allowed)}", _near(key, allowed))

    def _flag(self, key: str, default: bool) -> bool:
        value = self.attributes.get(key)
        if value is None:
            return default
        truth = _truth(value)
        if truth is None:
            self.fail(f"{key}={value} is not true or false")
        return bool(truth)

    def _choice(self, key: str, allowed: tuple[str, ...], default: str) -> str:
        value = self.attributes.get(key, default)
        if value not in allowed:
            self.fail(f"unknown {key} {value!r}, allowed are {', '.join(allowed)}", _near(value, allowed))
        return value

    def _compression(self) -> Compression:
        kind = self._choice("compression", tuple(_COMPRESSIONS), "gzip")
        level, bounds = self.attributes.get("compression-level"), _COMPRESSIONS[kind]
        if level is not None:
            if bounds is None:
                self.fail("compression-level needs compression=gzip or zstd")
            elif not (level.isascii() and level.isdigit() and bounds[0] <= int(level) <= bounds[1]):
                self.fail(f"compression-level {level!r} is not a number from {bounds[0]} to {bounds[1]}")
        force = self._flag("force-compression", False)
        return Compression("none" if kind == "uncompressed" else kind, None if level is None else int(level), force)

    def _sample(self) -> float:
        text = self.attributes.get("sample", "100%")
        try:
            percent = float(text.removesuffix("%"))
        except ValueError:
            percent = 0.0
        if not (text.endswith("%") and 0 < percent <= 100):
            self.fail(f"sample {text!r} is not a percentage above 0%, up to 100%")
        return percent / 100


_PLACE = frozenset((*_S3, "upload_parallelism", "touch_refresh", "ref", "registry.insecure"))
_PLACE |= {"src", "dest", "tag", "digest", "reset"}


def _near(word: str, options: object) -> str | None:
    import difflib

    near = difflib.get_close_matches(word, list(options), 1)  # type: ignore[call-overload]
    return f"did you mean {near[0]}?" if near else None


def _truth(value: str) -> bool | None:
    """As Go's strconv.ParseBool."""
    if value in ("1", "t", "T", "true", "TRUE", "True"):
        return True
    return False if value in ("0", "f", "F", "false", "FALSE", "False") else None
