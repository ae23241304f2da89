from __future__ import annotations

import pytest

from builder.errors import UsageError
from builder.export.spec import Annotation, OutputSpec, parse_output


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("out", OutputSpec("local", "out")),
        ("./a,b", None),
        ("-", OutputSpec("tar", "-")),
        ("dest=x", OutputSpec("local", "dest=x")),
        ("type=oci,dest=x.tar", OutputSpec("oci", "x.tar")),
        ('type=oci,"dest=a,b.tar"', OutputSpec("oci", "a,b.tar")),
        ("type=oci,dest=d,tar=false", OutputSpec("oci", "d", tar=False)),
        ("type=docker,dest=-,name=app:1", OutputSpec("docker", "-", names=("app:1",))),
        ('type=oci,dest=x,"name=a, b"', OutputSpec("oci", "x", names=("a", "b"))),
        (
            "type=oci,dest=x,compression=zstd,compression-level=3,force-compression=true",
            OutputSpec("oci", "x", compression="zstd", compression_level=3, force_compression=True),
        ),
        ("type=oci, DEST =x,rewrite-timestamp=1", OutputSpec("oci", "x", rewrite_timestamp=True)),
        ("type=image", OutputSpec("image")),
        ("type=oci", OutputSpec("oci", "-")),
        ("type=oci,dest=", OutputSpec("oci", "-")),
        ("type=tar", OutputSpec("tar", "-")),
        ("type=docker,name=a", OutputSpec("image", names=("a",))),
        ("type=docker,tar=false,dest=d", OutputSpec("docker", "d", tar=False)),
        ("type=image,store=true,unpack=false,name-canonical=true,oci-artifact=false", OutputSpec("image")),
        ("type=image,oci-mediatypes=false", OutputSpec("image", docker_types=True)),
        ("type=image,compatibility-version=20", OutputSpec("image", docker_types=True)),
        ("type=oci,dest=x,compatibility-version=20", OutputSpec("oci", "x")),
        ("type=image,compatibility-version=20,oci-mediatypes=true", OutputSpec("image")),
        ("type=local,dest=x,mode= Delete", OutputSpec("local", "x", delete=True)),
        ("type=oci,dest=x,source-date-epoch=0", OutputSpec("oci", "x", epoch=0)),
        ("type=local,dest=x,platform-split=false", OutputSpec("local", "x", platform_split=False)),
        (
            "type=oci,dest=x,annotation.Org.A=1=2,annotation-index[linux/arm64].b=",
            OutputSpec(
                "oci",
                "x",
                annotations=(Annotation("manifest", "", "Org.A", "1=2"), Annotation("index", "linux/arm64", "b", "")),
            ),
        ),
    ],
)
def test_an_output_is_read_as_buildx_reads_it(text: str, spec: OutputSpec | None) -> None:
    if spec is None:
        with pytest.raises(UsageError, match="key=value"):
            parse_output(text)
    else:
        assert parse_output(text) == spec


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "empty"),
        ("type=local", "dest is required"),
        ("type=oci,tar=false", "dest is required"),
        ("type=docker,tar=false", "dest is required"),
        ("type=local,dest=-", "stdout"),
        ("type=oci,dest=-,tar=false", "stdout"),
        ("type=registry,dest=x", "unknown attribute 'dest' for type registry"),
        ("type=moby,dest=x", "unknown type 'moby', allowed are image, registry, oci, docker, local, tar, cacheonly"),
        ("dest=x,tar=false", "the type is missing"),
        ("type=oci,dest=x,colour=red", "unknown attribute 'colour' for type oci, allowed: dest, tar, name"),
        ("type=tar,dest=x,annotation.a=b", "unknown attribute 'annotation'"),
        ("type=image,dest=x", "unknown attribute 'dest'"),
        ("type=oci,dest=x,tar=maybe", "tar=maybe is not true or false"),
        ("type=oci,dest=x,compression=lz4", "unknown compression 'lz4', allowed are gzip, zstd, uncompressed"),
        ("type=oci,dest=x,compression-level=12", "not a number from 0 to 9"),
        ("type=oci,dest=x,compression=uncompressed,compression-level=1", "needs compression"),
        ("type=oci,dest=x,annotation.=b", "no annotation"),
        ("type=oci,dest=x,annotation-layer.a=b", "no annotation"),
        ("type=oci,dest=x,oci-mediatypes=false,compression=zstd", "conflicts with oci-mediatypes=false"),
        ("type=image,compatibility-version=20,compression=zstd", "conflicts with oci-mediatypes=false"),
        ("type=image,compatibility-version=10", "compatibility-version '10' cannot be had, allowed are 20 and 30"),
        ("type=image,store=false", "store=false leaves nothing"),
        ("type=image,unpack=maybe", "unpack=maybe is not true or false"),
        ("type=oci,dest=x,store=true", "unknown attribute 'store'"),
        ("type=local,dest=x,mode=move", "unknown mode 'move', allowed are copy and delete"),
        ("type=tar,dest=x,mode=copy", "unknown attribute 'mode'"),
        ("type=oci,dest=x,source-date-epoch=now", "'now' is not a number of seconds"),
        ("type=oci,dest=x,compression=estargz", "unknown compression 'estargz'"),
        ('type=oci,"dest=x', "CSV"),
    ],
)
def test_a_wrong_output_is_a_usage_error(text: str, problem: str) -> None:
    with pytest.raises(UsageError, match=problem.replace("(", r"\(")):
        parse_output(text)
