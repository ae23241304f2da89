"""Attacks by tars: layers of images, archives that ADD unpacks, contexts."""

from __future__ import annotations

import gzip
import hashlib
import tarfile
import time
import zlib
from collections.abc import Iterator
from typing import Any

import zstandard

from tests.attacks.catalogue import attack
from tests.attacks.scene import Member, Scene, tar_of
from tests.builder.image_factory import LAYER, Image, digest_of, make_image

AREA = "Layers and archives"


def by_every_way(scene: Scene, tar: bytes, below: bytes = b"") -> None:
    """Have a tar unpacked as a layer (perhaps on another one), by ADD, as a context, and as an image that is run.

    Each ends with a result or an error of pybuild's own.
    """
    layers = [below, tar] if below else [tar]
    words = scene.image(*layers)
    scene.build("FROM evil\nRUN ls -R / > /dev/null\n", *words, "-t", "evil", "-o", "type=local,dest=out")
    scene.file("evil.tar", tar)
    scene.build("FROM base\nADD evil.tar /\nADD evil.tar /sub/\n")
    if not below:
        head = tar_of(Member("Dockerfile", content=b"FROM scratch\nCOPY . /\n"))
        archive = scene.file("context.tar", head[: 2 * 512] + tar)
        with archive.open("rb") as stdin:
            scene("build", "-", stdin=stdin)


def links_out(scene: Scene) -> list[str]:
    return [str(scene.host), "../../../../../../../../.." + str(scene.host), f"/proc/self/root{scene.host}"]


@attack(
    AREA,
    "CVE-2020-10696, CVE-2007-4559, CVE-2026-44517",
    "a link to the host, then files, directories, links, hard links and devices below it, in one archive",
    "resolved inside the root",
)
def write_through_a_link(scene: Scene) -> None:
    for target in links_out(scene)[1:]:
        members = [
            Member("a", tarfile.SYMTYPE, link=target),
            Member("a/canary", content=b"dead"),
            Member("a/new/file", content=b"dead"),
            Member("a/dir", tarfile.DIRTYPE, mode=0o777),
            Member("a/fifo", tarfile.FIFOTYPE),
            Member("a/hard", tarfile.LNKTYPE, link="a/canary"),
            Member("b/../a/canary", content=b"dead"),
        ]
        by_every_way(scene, tar_of(*members))


@attack(
    AREA,
    "CVE-2026-42574, CVE-2025-47290",
    "a link in one layer; in the next one files, whiteouts, opaque marks and hard links through it",
    "resolved inside the merged root",
)
def write_through_a_link_of_another_layer(scene: Scene) -> None:
    for target in links_out(scene)[:2]:
        below = tar_of(Member("a", tarfile.SYMTYPE, link=target), Member("d/e", tarfile.SYMTYPE, link=target))
        members = [
            [Member("a/canary", content=b"dead"), Member("d/e/new/file", content=b"dead")],
            [Member("a/.wh.canary"), Member("a/dir/.wh..wh..opq"), Member("d/e/.wh.dir")],
            [Member("d/e/x", tarfile.LNKTYPE, link="a/canary")],
        ]
        for each in members:
            scene.build("FROM evil\n", *scene.image(below, tar_of(*each)), "-o", "type=tar,dest=out.tar")


@attack(
    AREA,
    "CVE-2021-29136",
    "entries named `.`, `./`, `/`, `..`, `a/..` and the empty name, as links, files, hard links and devices",
    "the root can only be a directory; what climbs out is refused",
)
def replace_the_root(scene: Scene) -> None:
    for name in (".", "./", "/", "..", "a/..", "../../x", "/../x"):
        kind = tarfile.SYMTYPE if len(name) % 2 else tarfile.LNKTYPE
        tar = tar_of(Member(name, kind, link=str(scene.host)), Member("canary", content=b"dead"))
        scene.build("FROM evil\n", *scene.image(tar, on_base=False), "-o", "type=tar,dest=out.tar")


@attack(
    AREA,
    "CVE-2024-12718, CVE-2025-4138, CVE-2025-4330, CVE-2025-4435, CVE-2025-4517",
    "the published chain of links longer than PATH_MAX, whose end leads out while its text seems to stay inside",
    "names are walked one by one; no text of a path decides",
)
def the_chain_beyond_path_max(scene: Scene) -> None:
    part = "d" * 247
    members, path = [], ""
    for letter in "abcdefghijklmnop":
        members.append(Member(f"{path}{part}", tarfile.DIRTYPE))
        members.append(Member(f"{path}{letter}", tarfile.SYMTYPE, link=part))
        path += f"{letter}/"
    steps = "/".join("abcdefghijklmnop")
    members.append(Member(f"{steps}/{'l' * 254}", tarfile.SYMTYPE, link="../" * 16))
    members.append(Member("escape", tarfile.SYMTYPE, link=f"{steps}/{'l' * 254}/../../../../../../..{scene.host}"))
    members.append(Member("flag", tarfile.LNKTYPE, link="escape/canary"))
    members.append(Member("flag", content=b"dead"))
    members.append(Member("escape/canary", content=b"dead"))
    by_every_way(scene, tar_of(*members))


@attack(
    AREA,
    "generic; CVE-2018-15664",
    "hard links to files of the host, by absolute name, by `..`, to a link to it, to a device and to a directory",
    "links are made between names of the root only",
)
def hard_links_out(scene: Scene) -> None:
    device = Member("null", tarfile.CHRTYPE, device=(1, 3))
    for first, link in (
        (Member("x"), f"{scene.host}/canary"),
        (Member("x"), f"../../../../../../..{scene.host}/canary"),
        (Member("x", tarfile.SYMTYPE, link=f"{scene.host}/canary"), "x"),
        (Member("x", tarfile.SYMTYPE, link=str(scene.host)), "x/canary"),
        (device, "null"),
        (Member("x", tarfile.DIRTYPE), "x"),
        (Member("x"), "."),
    ):
        tar = tar_of(first, Member("hard", tarfile.LNKTYPE, link=link), Member("hard", content=b"dead"))
        scene.build("FROM evil\nRUN cat /hard; echo dead > /hard\n", *scene.image(tar), "-o", "type=local,dest=out")


@attack(
    AREA,
    "generic",
    "whiteouts of `.`, `..`, nothing, of a name beside its own file, an opaque mark on a file, device 0/0 as a file, "
    "attributes of overlayfs",
    "refused, or as containerd takes them; nothing below the root is deleted",
)
def odd_whiteouts(scene: Scene) -> None:
    for members in (
        [Member(".wh..")],
        [Member(".wh...")],
        [Member(".wh.")],
        [Member("dir/.wh...")],
        [Member("f"), Member(".wh.f")],
        [Member(".wh.f"), Member("f")],
        [Member("f"), Member("f/.wh..wh..opq")],
        [Member("gone", tarfile.CHRTYPE, device=(0, 0))],
        [Member("d", tarfile.DIRTYPE, pax={"SCHILY.xattr.trusted.overlay.redirect": "/etc"})],
        [Member("d", tarfile.DIRTYPE, pax={"SCHILY.xattr.user.overlay.opaque": "y"})],
        [Member(".wh..wh..opq", tarfile.SYMTYPE, link=str(scene.host))],
        [Member(".wh.etc", tarfile.DIRTYPE), Member("etc/../.wh.bin", tarfile.LNKTYPE, link="bin")],
    ):
        scene.build("FROM evil\n", *scene.image(tar_of(*members)), "-o", "type=tar,dest=out.tar")


@attack(
    AREA,
    "CVE-2021-20291",
    "layers that are no tar: nothing, one byte, text, a truncated tar, random bytes, a tar cut in its middle, a gzip "
    "without end, compression that is not what the type says",
    "an error within seconds",
)
def layers_that_are_none(scene: Scene) -> None:
    good = tar_of(Member("f", content=b"x" * 5000))
    for tar in (b"", b"x", b"text\n" * 400, good[:700], good[:3000], bytes(range(256)) * 40, good[512:]):
        begun = time.monotonic()
        scene.build("FROM evil\nRUN true\n", *scene.image(tar))
        assert time.monotonic() - begun < 20
    packed = gzip.compress(good)
    for blob, media_type in ((packed[:-9], f"{LAYER}+gzip"), (good, f"{LAYER}+gzip"), (packed, f"{LAYER}+zstd")):
        scene.refused(scene.build("FROM evil\nRUN true\n", *scene.layout(image_of(good, blob, media_type))))


def image_of(tar: bytes, blob: bytes, media_type: str, **changes: Any) -> Image:
    """An image of one layer whose blob may be anything."""
    layer = {"mediaType": media_type, "digest": digest_of(blob), "size": len(blob)}
    image = make_image(tar, compress=False, manifest_layers=[layer], **changes)
    image.blobs[digest_of(blob)] = blob
    return image


def zeros(size: int) -> Iterator[bytes]:
    """A tar with a file of zeros, never whole in memory."""
    info = tarfile.TarInfo("zeros")
    info.size = size
    yield info.tobuf()
    for _ in range(size >> 20):
        yield bytes(1 << 20)
    yield bytes(1024)


def bomb(size: int, algorithm: str) -> tuple[bytes, str]:
    """`zeros` compressed by `gzip` or `zstd`, and the digest of what it unpacks to."""
    digest = hashlib.sha256()
    compressor = zlib.compressobj(1, wbits=31) if algorithm == "gzip" else zstandard.ZstdCompressor().compressobj()
    packed = []
    for chunk in zeros(size):
        digest.update(chunk)
        packed.append(compressor.compress(chunk))
    return b"".join([*packed, compressor.flush()]), f"sha256:{digest.hexdigest()}"


@attack(
    AREA,
    "generic",
    "headers that lie: PAX records of 100 MB, a million records, names of 1 MB, negative and 8 EiB sizes, "
    "sparse files of "
    "terabytes, 20,000 attributes",
    "an error, or the member without what is absurd; memory stays small",
)
def headers_that_lie(scene: Scene) -> None:
    record = b"30 comment=" + b"x" * 18 + b"\n"
    header = tarfile.TarInfo("pax")
    header.type, header.size = tarfile.XHDTYPE, 100 << 20
    huge = header.tobuf() + b"1" * (1 << 20)
    many = tarfile.TarInfo("pax")
    many.type, many.size = tarfile.XHDTYPE, len(record) * 30_000
    long_name = tarfile.TarInfo("././@LongLink")
    long_name.type, long_name.size = tarfile.GNUTYPE_LONGNAME, 4 << 20
    base = bytearray(tarfile.TarInfo("f").tobuf())
    base[124:136] = b"\xff" * 12
    checksum = sum(base[:148]) + 8 * 32 + sum(base[156:512])
    base[148:156] = f"{checksum:06o}\0 ".encode()
    attributes = {f"SCHILY.xattr.user.a{number}": "x" for number in range(20_000)}
    sparse = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": str(1 << 43)}
    for tar in (
        huge,
        many.tobuf() + record * 30_000 + tar_of(Member("f")),
        long_name.tobuf() + b"n" * (4 << 20) + tar_of(Member("f")),
        bytes(base) + bytes(1024),
        tar_of(Member("f", pax={"size": "-1"})),
        tar_of(Member("f", pax={"size": str(1 << 63)})),
        tar_of(Member("f", pax={"mtime": "nan"}), Member("g", pax={"mtime": "1e309"})),
        tar_of(Member("f", pax=attributes)),
        tar_of(Member("f", pax=sparse)),
    ):
        scene.build("FROM evil\nRUN true\n", *scene.image(tar))


@attack(
    AREA,
    "zip bombs",
    "layers and archives of 1 GB of zeros that are 5 MB of gzip or 100 KB of zstd, on a store of 64 MB; gzip in gzip",
    "an error that names the full disk; what was unpacked is given back, the next build works",
    root_only="makes a file system of 64 MB",
)
def bombs(scene: Scene) -> None:
    gzipped, unpacked = bomb(1 << 30, "gzip")
    zstd, _ = bomb(1 << 30, "zstd")
    rootfs = {"type": "layers", "diff_ids": [unpacked]}
    with scene.small_disk(64):
        for blob, media_type in ((gzipped, f"{LAYER}+gzip"), (zstd, f"{LAYER}+zstd")):
            words = scene.layout(image_of(b"", blob, media_type, rootfs=rootfs))
            scene.refused(scene.build("FROM evil\nRUN true\n", *words), "no space left")
        scene.file("bomb.tar.gz", gzipped)
        scene.refused(scene.build("FROM base\nADD bomb.tar.gz /\n"), "no space left")
        scene.file("bomb.tar.gz", gzip.compress(gzipped))
        scene.build("FROM base\nADD bomb.tar.gz /\n")
        scene.ok(scene.build("FROM base\nRUN echo fine\n"))


@attack(
    AREA,
    "generic",
    "100,000 entries of one name, of one directory each deeper than the last, 2,000 levels",
    "an error or the image, in time",
)
def many_entries(scene: Scene) -> None:
    same = tar_of(*[Member("f", content=b"x")] * 20_000)
    deep = tar_of(*(Member("d/" * level + "d", tarfile.DIRTYPE) for level in range(0, 2000, 50)))
    for tar in (same, deep):
        scene.build("FROM evil\nRUN true\n", *scene.image(tar))
