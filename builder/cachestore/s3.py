"""Caches in a bucket of an object store that speaks S3.

    <prefix><blobs_prefix><digest>       blobs: layers, indexes of caches
    <prefix><manifests_prefix><name>     the manifest that a name means; several names may mean the same

A bucket collects nothing by itself: what is in use is touched once in `touch_refresh`, so that a rule of the bucket may
remove what is older. The only door to boto3, which is an extra of the distribution.
Source: buildx, s3 cache backend, for the names of the attributes.
"""

from __future__ import annotations

import io
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from builder.cachestore.options import CacheSpec
from builder.cachestore.place import Found
from builder.errors import BuildError, UsageError
from builder.image.document import MAX_DOCUMENT_SIZE
from builder.image.layout import verified
from builder.image.manifest import Manifest, parse_manifest
from cache.blobs import Readable
from cache.descriptor import MEDIA_MANIFEST, Descriptor
from cache.digest import Digest, sha256_bytes
from cache.exchange import MAX_SIZE
from cache.store import Store

_NAME = "pybuild"
_TOUCH = "24h"
_ABSENT = frozenset(("404", "NoSuchKey", "NotFound"))
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(h|m|s)")
_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0}


class _Bucket:
    """Objects by their keys; the library's errors become BuildErrors."""

    def __init__(self, spec: CacheSpec, environ: Mapping[str, str]) -> None:
        given = spec.attributes
        self._bucket = given["bucket"]
        prefix = given.get("prefix", "")
        self._blobs = prefix + given.get("blobs_prefix", "blobs/")
        self._manifests = prefix + given.get("manifests_prefix", "manifests/")
        self.names = [name for name in given.get("name", _NAME).split(";") if name]
        if not self.names:
            raise UsageError(f"{spec.name}: name is empty")
        self._client = _client(spec, environ)

    def blob_key(self, digest: Digest) -> str:
        """Where a blob is."""
        return self._blobs + digest

    def manifest_key(self, name: str) -> str:
        """Where the manifest of a name is."""
        return self._manifests + name

    def head(self, key: str) -> dict[str, Any] | None:
        """What is said of an object, None when it is not there."""
        found: dict[str, Any] | None = self._call("head_object", key, absent=None)
        return found

    def read(self, key: str, limit: int) -> bytes | None:
        """A whole small object, None when it is not there. Of a larger one `limit` + 1 bytes."""
        found = self._call("get_object", key, absent=None)
        if found is None:
            return None
        with self._errors(key), found["Body"] as body:
            return bytes(body.read(limit + 1))

    def open(self, key: str) -> Any:
        """An object's bytes as a stream; close it."""
        found = self._call("get_object", key, absent=None)
        if found is None:
            raise BuildError(f"bucket {self._bucket!r} lacks {key!r}", hint="a rule of the bucket may have removed it")
        return found["Body"]

    def put(self, key: str, stream: Readable, media_type: str) -> None:
        """Store an object, a large one in parts that go several at a time."""
        with self._errors(key):
            self._client.upload_fileobj(stream, self._bucket, key, ExtraArgs={"ContentType": media_type})

    def touch(self, key: str, media_type: str) -> None:
        """Make an object young again: a copy onto itself, which has to change something to be allowed."""
        source = {"Bucket": self._bucket, "Key": key}
        stamp = {"touched": str(int(time.time()))}
        self._call(
            *("copy_object", key),
            CopySource=source,
            MetadataDirective="REPLACE",
            Metadata=stamp,
            ContentType=media_type,
        )

    def close(self) -> None:
        """Give connections up. Idempotent."""
        self._client.close()

    def _call(self, deed: str, key: str, absent: object = ..., **fields: Any) -> Any:
        from botocore.exceptions import ClientError

        with self._errors(key):
            try:
                return getattr(self._client, deed)(Bucket=self._bucket, Key=key, **fields)
            except ClientError as error:
                if absent is not ... and error.response.get("Error", {}).get("Code") in _ABSENT:
                    return absent
                raise

    @contextmanager
    def _errors(self, key: str) -> Iterator[None]:
        from boto3.exceptions import Boto3Error
        from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

        try:
            yield
        except NoCredentialsError as error:
            hint = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or access_key_id=… and secret_access_key=…"
            raise BuildError(f"bucket {self._bucket!r}: no credentials", hint=hint) from error
        except ClientError as error:
            said = error.response.get("Error", {})
            reason = f"{said.get('Code', 'error')}: {said.get('Message', '')}".rstrip(": ")
            raise BuildError(f"bucket {self._bucket!r}, {key!r}: {reason}") from error
        except (BotoCoreError, Boto3Error) as error:
            raise BuildError(f"bucket {self._bucket!r}, {key!r}: {error}") from error


def _client(spec: CacheSpec, environ: Mapping[str, str]) -> Any:
    try:
        import boto3
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError
    except ImportError as error:
        raise BuildError("type=s3 needs boto3, which is not installed", hint="pip install 'pybuild[s3]'") from error
    given = spec.attributes
    style = {"addressing_style": "path"} if spec.flag("use_path_style") else {}
    attempts = given.get("retry_attempts", "5")
    if not attempts.isdecimal():
        raise UsageError(f"--cache type=s3: retry_attempts {attempts!r} is not a number")
    retries = {"mode": given.get("retry_mode", "standard"), "max_attempts": int(attempts)}
    config = Config(s3=style, retries=retries, max_pool_connections=32, user_agent_extra="pybuild")
    try:
        session = boto3.session.Session(
            aws_access_key_id=given.get("access_key_id") or None,
            aws_secret_access_key=given.get("secret_access_key") or None,
            aws_session_token=given.get("session_token") or None,
            region_name=given.get("region") or environ.get("AWS_REGION") or None,
        )
        endpoint = given.get("endpoint_url") or environ.get("AWS_ENDPOINT_URL_S3") or None
        return session.client("s3", endpoint_url=endpoint, config=config)
    except (BotoCoreError, ValueError) as error:
        raise BuildError(f"bucket {given['bucket']!r}: {error}") from error


class BucketSource:
    """See CacheSource."""

    repository = ""

    def __init__(self, spec: CacheSpec, environ: Mapping[str, str]) -> None:
        self._bucket = _Bucket(spec, environ)

    def read(self) -> Found | None:
        """See CacheSource. Of several names the first that means something is taken."""
        for name in self._bucket.names:
            key = self._bucket.manifest_key(name)
            raw = self._bucket.read(key, MAX_DOCUMENT_SIZE)
            if raw is None:
                continue
            manifest = parse_manifest(raw, f"manifest {key}")
            if not isinstance(manifest, Manifest):
                raise BuildError(f"{key} is an index, expected a manifest")
            blob_key = self._bucket.blob_key(manifest.config.digest)
            config = self._bucket.read(blob_key, MAX_SIZE) if manifest.config.size <= MAX_SIZE else b""
            if config is None:
                raise BuildError(f"bucket lacks {blob_key!r}")
            return Found(manifest, verified(config, manifest.config, key))
        return None

    @contextmanager
    def open(self, blob: Descriptor) -> Iterator[Readable]:
        """See CacheSource."""
        with self._bucket.open(self._bucket.blob_key(blob.digest)) as body:
            yield _Body(body)

    def note(self, store: Store, blobs: Iterable[Digest]) -> None:
        """See CacheSource."""

    def close(self) -> None:
        """See CacheSource."""
        self._bucket.close()


class _Body:
    """An object's bytes; what breaks on the way is a BuildError."""

    def __init__(self, body: Any) -> None:
        self._body = body

    def read(self, size: int = -1, /) -> bytes:
        """At most `size` bytes, none at the end."""
        from botocore.exceptions import BotoCoreError

        try:
            return bytes(self._body.read(size if size >= 0 else None))
        except BotoCoreError as error:
            raise BuildError(f"object store: {error}") from error


class BucketTarget:
    """See CacheTarget."""

    def __init__(self, spec: CacheSpec, environ: Mapping[str, str]) -> None:
        parallel = spec.attributes.get("upload_parallelism", "4")
        if not (parallel.isdecimal() and 0 < int(parallel) <= 64):
            raise UsageError(f"--cache-to type=s3: upload_parallelism {parallel!r} is not a number from 1 to 64")
        self.parallel = int(parallel)
        self._touch_seconds = _seconds(spec.attributes.get("touch_refresh", _TOUCH))
        self._bucket = _Bucket(spec, environ)

    def present(self) -> tuple[Digest, frozenset[Digest]]:
        """See CacheTarget. A bucket promises nothing about what its manifests name, so every blob is looked for."""
        digests = {self._present(self._bucket.manifest_key(name)) for name in self._bucket.names}
        return digests.pop() if len(digests) == 1 else Digest(""), frozenset()

    def _present(self, key: str) -> Digest:
        """The manifest that an object is, "" for none, and for one that is old enough to be written again."""
        found = self._bucket.head(key)
        if found is None or self._is_old(found):
            return Digest("")
        raw = self._bucket.read(key, MAX_DOCUMENT_SIZE)
        return Digest("") if raw is None else sha256_bytes(raw)

    def _is_old(self, found: Mapping[str, Any]) -> bool:
        return bool(time.time() - found["LastModified"].timestamp() > self._touch_seconds)

    def send(self, blob: Descriptor, opening: Callable[[], Readable], mount_from: Iterable[str]) -> bool:
        """See CacheTarget."""
        key = self._bucket.blob_key(blob.digest)
        found = self._bucket.head(key)
        if found is not None and found.get("ContentLength") == blob.size:
            if self._is_old(found):
                self._bucket.touch(key, blob.media_type)
            return False
        self._bucket.put(key, opening(), blob.media_type)
        return True

    def publish(self, manifest_raw: bytes, config_raw: bytes) -> None:
        """See CacheTarget."""
        manifest = parse_manifest(manifest_raw)
        assert isinstance(manifest, Manifest)
        key = self._bucket.blob_key(manifest.config.digest)
        self._bucket.put(key, io.BytesIO(config_raw), manifest.config.media_type)
        for name in self._bucket.names:
            self._bucket.put(self._bucket.manifest_key(name), io.BytesIO(manifest_raw), MEDIA_MANIFEST)

    def close(self) -> None:
        """See CacheTarget."""
        self._bucket.close()


def _seconds(text: str) -> float:
    """`24h`, `90m`, `1h30m` as seconds; UsageError."""
    if not text or _DURATION.sub("", text):
        raise UsageError(f"--cache-to type=s3: touch_refresh {text!r} is no duration", hint="for example 24h or 90m")
    return sum(float(number) * _UNITS[unit] for number, unit in _DURATION.findall(text))
