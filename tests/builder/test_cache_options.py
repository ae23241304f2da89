"""What --cache-from and --cache-to say."""

from __future__ import annotations

import pytest

from builder.cachestore.options import parse_cache
from builder.errors import UsageError
from builder.export.pack import Compression


def test_a_bare_name_is_a_registrys() -> None:
    spec = parse_cache("registry.example/app:cache", "from")
    assert (spec.type, dict(spec.attributes), spec.trust) == ("registry", {"ref": "registry.example/app:cache"}, "full")


def test_everything() -> None:
    spec = parse_cache(
        "type=registry,ref=r.example/a,mode=max,compression=zstd,compression-level=19,force-compression=true,"
        "ignore-error=true,oci-mediatypes=true,image-manifest=true,mounts=true,registry.insecure=1",
        "to",
    )
    assert spec.compression == Compression("zstd", 19, True)
    assert (spec.mode, spec.ignore_error, spec.mounts, spec.flag("registry.insecure")) == ("max", True, True, True)
    assert spec.name == "type=registry,ref=r.example/a,registry.insecure=1"


def test_verify() -> None:
    spec = parse_cache("type=local,src=x,trust=verify,sample=2.5%", "from")
    assert (spec.trust, spec.sample) == ("verify", 0.025)


def test_a_name_may_have_a_comma() -> None:
    assert parse_cache('type=local,"dest=a,b"', "to").attributes["dest"] == "a,b"


def test_credentials_are_in_no_name() -> None:
    text = "type=s3,bucket=b,access_key_id=AKIA,secret_access_key=hidden,session_token=token"
    assert parse_cache(text, "to").name == "type=s3,bucket=b"


@pytest.mark.parametrize(
    ("direction", "text", "message", "hint"),
    [
        ("from", "type=regitsry,ref=x", "unknown type 'regitsry'", "registry"),
        ("from", "ref=x", "the type is missing", "type=registry"),
        ("from", "type=gha", "type=gha is not supported", "type=registry,ref=ghcr.io"),
        ("to", "type=azblob,name=x", "type=azblob is not supported", "type=s3"),
        ("from", "type=inline", "type=inline is for --cache-to", "type=registry,ref=IMAGE"),
        ("to", "type=local,dest=x,mdoe=max", "unknown attribute 'mdoe'", "mode"),
        ("from", "type=local,dest=x", "attribute 'dest' is for --cache-to", None),
        ("to", "type=local,src=x", "attribute 'src' is for --cache-from", None),
        ("to", "type=local", "dest is required", None),
        ("from", "type=s3,region=x", "bucket is required", None),
        ("to", "type=registry,ref=x,mode=maximum", "unknown mode 'maximum'", None),
        ("to", "type=registry,ref=x,compression=lz4", "unknown compression 'lz4'", None),
        ("to", "type=registry,ref=x,compression-level=10", "compression-level '10' is not a number from 0 to 9", None),
        ("to", "type=registry,ref=x,compression=uncompressed,compression-level=1", "compression-level needs", None),
        ("to", "type=registry,ref=x,oci-mediatypes=false", "OCI image manifest only", "leave out"),
        ("to", "type=registry,ref=x,image-manifest=false", "OCI image manifest only", "leave out"),
        ("to", "type=registry,ref=x,ignore-error=maybe", "ignore-error=maybe is not true or false", None),
        ("to", "type=inline,mode=max", "unknown mode 'max', allowed are min", None),
        ("from", "type=local,src=x,trust=readonly", "unknown trust 'readonly'", "read-only"),
        ("from", "type=local,src=x,trust=read-only,mounts=true", "mounts=true needs trust=full", "cache mount"),
        ("from", "type=local,src=x,sample=10%", "sample needs trust=verify", None),
        ("from", "type=local,src=x,trust=verify,sample=0%", "sample '0%'", None),
        ("from", "type=local,src=x,trust=verify,sample=half", "sample 'half'", None),
        ("from", "type=local,src", "'src' is not key=value", "type=registry"),
        ("from", "", "is empty", "type=registry"),
        ("from", 'type=local,"src', "is not valid CSV", None),
    ],
)
def test_mistakes(direction: str, text: str, message: str, hint: str | None) -> None:
    with pytest.raises(UsageError) as caught:
        parse_cache(text, direction)
    assert message in str(caught.value)
    assert (hint or "") in (caught.value.hint or "")
