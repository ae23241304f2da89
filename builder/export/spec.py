"""What `--output` says: a type and its attributes, as `docker buildx build` spells them.

Text in, values out; every name and value is checked here, nothing is opened.
"""

from collections.abc import Iterable
from typing import NoReturn

from builder.errors import UsageError
from cache.namedtuple import NamedTuple

_COMPRESSION = ("compression", "compression-level", "force-compression")
_TIMES = ("rewrite-timestamp", "source-date-epoch")
_IMAGE = ("name", *_COMPRESSION, *_TIMES, "oci-mediatypes", "compatibility-version", "annotation", "oci-artifact")
_PUSH = ("push-by-digest", "registry.insecure")
_ALLOWED: dict[str, tuple[str, ...]] = {
    "image": (*_IMAGE, *_PUSH, "push", "store", "unpack", "name-canonical"),
    "registry": (*_IMAGE, *_PUSH, "push", "store", "unpack", "name-canonical"),
    "oci": ("dest", "tar", *_IMAGE),
    "docker": ("dest", "tar", *_IMAGE),
    "local": ("dest", "platform-split", "mode"),
    "tar": ("dest", "platform-split"),
    "cacheonly": (),
}
_COMPRESSIONS = {"gzip": (0, 9), "zstd": (0, 22), "uncompressed": None}
_HINTS = {
    "dangling-name-prefix": "an image without a name is kept under its id",
    "attestation-prefix": "attestations are not made",
}
"""For attributes that other builders have."""
_OLD_DEFAULTS, _CURRENT = "20", "30"
_ANNOTATED = ("manifest", "manifest-descriptor", "index", "index-descriptor")


class Annotation(NamedTuple):
    """An annotation for one kind of document, on one platform or ("") all."""

    place: str
    platform: str
    key: str
    value: str


class OutputSpec(NamedTuple):
    """One `--output`. `dest` is a path, `-` for stdout, or "" where the type has none."""

    type: str
    dest: str = ""
    names: tuple[str, ...] = ()
    tar: bool = True
    compression: str = ""
    """"" when not said: gzip for archives, as they are for the store."""
    compression_level: int | None = None
    force_compression: bool = False
    rewrite_timestamp: bool | None = None
    """None when not said: times in layers are clamped where SOURCE_DATE_EPOCH is given."""
    platform_split: bool | None = None
    needs_index: bool = False
    """Whether an image is put under an index though it is for one platform only."""
    delete: bool = False
    """Of a local directory: what the result does not have is removed."""
    docker_types: bool = False
    """Docker's media types instead of OCI's."""
    epoch: int | None = None
    """A SOURCE_DATE_EPOCH for this output alone."""
    annotations: tuple[Annotation, ...] = ()
    push: bool = False
    """Whether the image goes to the registry of each of its names."""
    push_by_digest: bool = False
    insecure: bool = False


def parse_output(text: str) -> OutputSpec:
    """Return what one `--output` value asks for; UsageError names what is wrong and what is allowed.

    `type=oci,dest=x.tar` in CSV (quote a field that has a comma), a bare path is `type=local`, `-` is a tar to stdout.
    """
    fields = _fields(text)
    if fields == [text] and not text.startswith("type="):
        return OutputSpec("tar", "-") if text == "-" else OutputSpec("local", text)
    attributes: dict[str, str] = {}
    for field in fields:
        key, equals, value = field.partition("=")
        if not equals:
            raise UsageError(f"output {text!r}: {field!r} is not key=value", hint="for example type=oci,dest=image.tar")
        attributes[_attribute_name(key)] = value
    kind = attributes.pop("type", "")
    if kind not in _ALLOWED:
        problem = f"unknown type {kind!r}" if kind else "the type is missing"
        raise UsageError(f"output {text!r}: {problem}, allowed are {', '.join(_ALLOWED)}")
    return _Attributes(text, kind, attributes).spec()


def pick_annotations(annotations: Iterable[Annotation], place: str, platform: str = "") -> dict[str, str]:
    """Return the annotations for one kind of document, sorted; those for another platform are left out."""
    chosen = [a for a in annotations if a.place == place and a.platform in ("", platform)]
    return {a.key: a.value for a in sorted(chosen)}


def _fields(text: str) -> list[str]:
    import csv

    try:
        rows = list(csv.reader([text], strict=True))
    except csv.Error as error:
        raise UsageError(f"output {text!r} is not valid CSV: {error}") from error
    if len(rows) != 1 or not rows[0]:
        raise UsageError(f"output {text!r} is empty", hint="for example type=oci,dest=image.tar")
    return rows[0]


def _attribute_name(key: str) -> str:
    """Names are matched without regard to case, the key of an annotation is not a name."""
    head, dot, rest = key.strip().partition(".")
    return head.lower() + dot + rest


class _Attributes:
    """The attributes of one output while they are read."""

    def __init__(self, text: str, kind: str, attributes: dict[str, str]) -> None:
        self.text, self.kind, self.attributes = text, kind, attributes

    def spec(self) -> OutputSpec:
        annotations = tuple([self.annotation(key) for key in self.attributes if key.startswith("annotation")])
        for key in self.attributes:
            if not key.startswith("annotation") and key not in _ALLOWED[self.kind]:
                self.refuse(key)
        if annotations and "annotation" not in _ALLOWED[self.kind]:
            self.refuse("annotation")
        kind, dest = self.place()
        self._check_accepted()
        return OutputSpec(
            type=kind,
            dest=dest,
            names=tuple([name.strip() for name in self.attributes.get("name", "").split(",") if name.strip()]),
            tar=self.flag("tar", True),
            compression=self.compression(),
            compression_level=self.level(),
            force_compression=self.flag("force-compression", False),
            rewrite_timestamp=self.choice("rewrite-timestamp"),
            platform_split=self.choice("platform-split"),
            delete=self.is_mode_delete(),
            docker_types=self.has_docker_types(),
            epoch=self.epoch(),
            annotations=annotations,
            push=self.is_pushed(),
            push_by_digest=self.flag("push-by-digest", False),
            insecure=self.flag("registry.insecure", False),
        )

    def fail(self, problem: str, hint: str | None = None) -> NoReturn:
        raise UsageError(f"output {self.text!r}: {problem}", hint=hint)

    def refuse(self, key: str) -> None:
        allowed = ", ".join(_ALLOWED[self.kind]) or "none"
        self.fail(f"unknown attribute {key!r} for type {self.kind}, allowed: {allowed}", _HINTS.get(key))

    def _check_accepted(self) -> None:
        """What the local store does anyway, or what no image here has. Asking for the contrary is an error."""
        for key in ("unpack", "name-canonical", "oci-artifact"):
            self.flag(key, True)  # unpacked when it is run; found by name@digest; without attestations nothing changes
        if not self.flag("store", True) and not self.is_pushed():
            self.fail("store=false leaves nothing", "write type=cacheonly to keep the cache alone")

    def is_pushed(self) -> bool:
        return self.flag("push", self.kind == "registry")

    def is_mode_delete(self) -> bool:
        mode = self.attributes.get("mode", "").strip().lower()
        if mode not in ("", "copy", "delete"):
            self.fail(f"unknown mode {mode!r}, allowed are copy and delete")
        return mode == "delete"

    def has_docker_types(self) -> bool:
        """As oci-mediatypes says, else as the builders of a time did: those of 20 had Docker's in all but type=oci."""
        version = self.attributes.get("compatibility-version", _CURRENT)
        if version not in (_OLD_DEFAULTS, _CURRENT):
            self.fail(f"compatibility-version {version!r} cannot be had, allowed are {_OLD_DEFAULTS} and {_CURRENT}")
        default = self.kind == "oci" or version == _CURRENT
        is_docker = not self.flag("oci-mediatypes", default)
        if is_docker and self.compression() == "zstd":
            self.fail("compression=zstd conflicts with oci-mediatypes=false")
        return is_docker

    def epoch(self) -> int | None:
        text = self.attributes.get("source-date-epoch", "")
        if not text:
            return None
        if not text.removeprefix("-").isdecimal() or len(text) > 18:
            self.fail(f"source-date-epoch {text!r} is not a number of seconds since 1970")
        return int(text)

    def place(self) -> tuple[str, str]:
        """The type, and where to write. Without a place archives go to stdout, and Docker's to the local store."""
        dest = self.attributes.get("dest", "")
        is_directory = self.kind == "local" or not self.flag("tar", True)
        if dest == "-" and is_directory:
            self.fail("a directory cannot be written to stdout")
        if self.kind in ("image", "registry"):
            is_kept = self.flag("store", True) if self.kind == "image" else not self.is_pushed()
            return "image" if is_kept else "registry", ""
        if dest or "dest" not in _ALLOWED[self.kind]:
            return self.kind, dest
        if is_directory:
            self.fail(f"dest is required for type {self.kind}", f"write type={self.kind},dest=PATH")
        return ("image", "") if self.kind == "docker" else (self.kind, "-")

    def flag(self, key: str, default: bool) -> bool:
        """As Go's strconv.ParseBool."""
        value = self.attributes.get(key)
        if value is None:
            return default
        if value in ("1", "t", "T", "true", "TRUE", "True"):
            return True
        if value not in ("0", "f", "F", "false", "FALSE", "False"):
            self.fail(f"{key}={value} is not true or false")
        return False

    def choice(self, key: str) -> bool | None:
        """A flag, None when it is not there."""
        return self.flag(key, False) if key in self.attributes else None

    def compression(self) -> str:
        value = self.attributes.get("compression", "")
        if value not in _COMPRESSIONS and "compression" in self.attributes:
            hint = "gzip and zstd can be read by everything that reads estargz" if value == "estargz" else None
            self.fail(f"unknown compression {value!r}, allowed are {', '.join(_COMPRESSIONS)}", hint)
        return value

    def level(self) -> int | None:
        value = self.attributes.get("compression-level")
        if value is None:
            return None
        bounds = _COMPRESSIONS[self.compression() or "gzip"]
        if bounds is None:
            self.fail("compression-level needs compression=gzip or zstd")
        elif not (value.isascii() and value.isdigit() and bounds[0] <= int(value) <= bounds[1]):
            self.fail(f"compression-level {value!r} is not a number from {bounds[0]} to {bounds[1]}")
        return int(value)

    def annotation(self, key: str) -> Annotation:
        """`annotation[-manifest|-index|-manifest-descriptor|-index-descriptor][[platform]].KEY=VALUE`."""
        head, dot, name = key.partition(".")
        place, bracket, platform = head.removeprefix("annotation").removeprefix("-").partition("[")
        wrong_bracket = bracket and not platform.endswith("]")
        if not (dot and name) or wrong_bracket or (place or "manifest") not in _ANNOTATED:
            self.fail(f"{key!r} is no annotation, write annotation.KEY=VALUE")
        return Annotation(place or "manifest", platform.removesuffix("]"), name, self.attributes[key])
