"""Other programs read every kind of image that we write and check its digests; what they unpack is what was built."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.conftest import Pybuild
from tests.e2e import trees
from tests.e2e.peers import require, run

LAYERS = """FROM base
COPY tree /w
RUN ln /w/a /w/linked && ln -s nowhere /w/dangling && mkfifo /w/fifo && chmod 4711 /w/a
RUN rm -rf /w/d && mkdir /w/d && echo new > /w/d/new && rm /w/b
WORKDIR /elsewhere
RUN mv /w/d /elsewhere/moved && touch "$(printf '/w/n\\303\\251 w')" && chown -R 1000:2000000 /elsewhere
"""
LINKED = """FROM base AS parts
RUN mkdir /out && echo built > /out/one && rm -r /home
FROM base
COPY --link --from=parts /out /opt/
COPY --link --chown=7:8 tree/ /opt/
LABEL done=yes
"""
SMALL = 'FROM scratch\nCOPY tree/a /a\nENV A=b\nENTRYPOINT ["/a"]\n'
NOTHING = "FROM scratch\nLABEL only=labels\n"
CASES = {"layers": LAYERS, "linked": LINKED, "small": SMALL, "nothing": NOTHING}


def layout_of(pybuild: Pybuild, based: list[str], text: str, compression: str) -> Path:
    """Build the Dockerfile `text` as an OCI layout with the tag 1, and its tree beside it as flat.tar."""
    pybuild.write(Dockerfile=text, tree__a="a\n", tree__b="b\n", tree__d__old="old\n")
    scratch = pybuild.cwd.parent
    layout = f"type=oci,tar=false,dest={scratch}/layout,compression={compression},force-compression=true"
    pybuild.ok("build", *based, "-t", "checked:1", "-o", layout, "-o", f"type=tar,dest={scratch}/flat.tar", ".")
    return scratch / "layout"


@pytest.mark.parametrize("compression", ["gzip", "zstd", "uncompressed"])
@pytest.mark.parametrize("case", CASES)
def test_skopeo_checks_every_blob(pybuild: Pybuild, based: list[str], case: str, compression: str) -> None:
    require("skopeo")
    layout = layout_of(pybuild, based, CASES[case], compression)
    copy = layout.with_name("copy")
    run("skopeo", "copy", "-q", f"oci:{layout}:1", f"dir:{copy}")
    index = json.loads((layout / "index.json").read_text())
    assert run("skopeo", "manifest-digest", copy / "manifest.json").strip() == index["manifests"][0]["digest"]
    layers = json.loads((copy / "manifest.json").read_text())["layers"]
    kinds = {layer["mediaType"].partition(".tar")[2] for layer in layers}
    assert kinds <= {{"gzip": "+gzip", "zstd": "+zstd", "uncompressed": ""}[compression]}


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
@pytest.mark.parametrize("case", CASES)
def test_umoci_unpacks_what_was_built(pybuild: Pybuild, based: list[str], case: str, compression: str) -> None:
    require("umoci", "skopeo")
    layout = layout_of(pybuild, based, CASES[case], compression)
    if compression == "zstd" and not _reads_zstd():
        # Older ones know gzip only; skopeo packs the same layers again.
        run("skopeo", "copy", "-q", "--dest-compress-format=gzip", f"oci:{layout}:1", f"oci:{layout}2:1")
        layout = layout.with_name("layout2")
    run("umoci", "stat", "--image", f"{layout}:1", "--json")
    bundle = layout.with_name("bundle")
    run("umoci", "unpack", "--image", f"{layout}:1", bundle)
    assert trees.in_directory(bundle / "rootfs") == trees.in_tar(layout.with_name("flat.tar"))
    run("umoci", "gc", "--layout", layout)


def _reads_zstd() -> bool:
    shown = subprocess.run(["umoci", "--version"], capture_output=True, text=True, check=True).stdout
    version = shown.split()[2].split("+")[0].split("-")[0].split(".")
    return [int(number) for number in version[:2]] >= [0, 5]
