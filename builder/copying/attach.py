"""Files that are about a pushed image, such as SBOMs, as manifests that refer to it (image-spec 1.1, subject)."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterable

from builder.errors import BuildError, UsageError
from builder.image.document import encode_document
from builder.image.referrer import EMPTY_CONFIG, MEDIA_EMPTY, TITLE, artifact
from builder.registry.referrers import push_referrer
from builder.registry.repository import Repository
from builder.registry.transfers import OnTransfer, Progress
from cache.descriptor import MEDIA_MANIFEST, Descriptor
from cache.digest import Digest
from cache.namedtuple import NamedTuple

_NAME = r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}"


class Attachment(NamedTuple):
    """A file to attach: where it lies, and it as a blob, whose media type is the artifact's type as well."""

    path: str
    blob: Descriptor


def parse_attachments(texts: Iterable[str], cwd: str) -> list[Attachment]:
    """Return the files of `TYPE=FILE`s, whose bytes are read once. UsageError for another form, BuildError for a file
    that cannot be read."""
    return [_attachment(text, cwd) for text in texts]


def _attachment(text: str, cwd: str) -> Attachment:
    kind, equals, file = text.partition("=")
    if not equals or not file or not _is_media_type(kind):
        hint = "as --attach application/spdx+json=sbom.json"
        raise UsageError(f'--attach "{text}" is not TYPE=FILE with a media type', hint=hint)
    path = os.path.join(cwd, file)
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise BuildError(f"--attach: {file} is not a regular file")
        with open(path, "rb") as opened:
            digest = Digest.of_hex(hashlib.file_digest(opened, "sha256").hexdigest())
            size = opened.tell()
    except OSError as error:
        raise BuildError(f"--attach: {file} cannot be read: {(error.strerror or str(error)).lower()}") from error
    return Attachment(path, Descriptor(kind, digest, size, {TITLE: os.path.basename(path)}))


def _is_media_type(text: str) -> bool:
    """RFC 6838 section 4.2: two names with a slash between them."""
    return re.fullmatch(f"{_NAME}/{_NAME}", text) is not None


def attach(repository: Repository, subject: Descriptor, file: Attachment, on_transfer: OnTransfer) -> Digest:
    """Push a file that is about `subject`, which is there; the digest of its manifest. RegistryError. Idempotent."""
    progress = Progress(on_transfer, file.blob.digest, file.blob.size)
    repository.upload_bytes(EMPTY_CONFIG, MEDIA_EMPTY)
    repository.upload(file.blob, lambda: open(file.path, "rb"), on_sent=progress.add)
    raw = encode_document(artifact(file.blob.media_type, file.blob, subject))
    return push_referrer(repository, raw, MEDIA_MANIFEST)
