"""Attacks by mounts of a step: their sources, their targets, the names of caches, races between steps."""

from __future__ import annotations

import tarfile

from tests.attacks.catalogue import attack
from tests.attacks.scene import Member, Scene, printed, tar_of

AREA = "Mounts of a step"


@attack(
    AREA,
    "CVE-2024-1753",
    "a bind mount whose source in an image or in the context is a link to / or to the host, or climbs out with `..`",
    "resolved inside the image or the context: not found, or a file of it",
)
def sources_as_links(scene: Scene) -> None:
    links = [Member("l", tarfile.SYMTYPE, link="/"), Member("h", tarfile.SYMTYPE, link=str(scene.host))]
    links.append(Member("up", tarfile.SYMTYPE, link="../../../../../../.." + str(scene.host)))
    words = scene.image(tar_of(*links))
    (scene.cwd / "h").symlink_to(scene.host)
    steal = (
        f"RUN --mount=type=bind,%s,target=/m,rw cat /m/canary /m{scene.host}/canary; rm -rf /m/canary /m{scene.host}\n"
    )
    for source in ("l", "h", "up", "h/dir", "l/../../../.." + str(scene.host)):
        done = scene.build("FROM base\n" + steal % f"from=evil,source=/{source}" + "RUN false\n", *words)
        assert "alive" not in printed(done)
    for source in ("h", "../scratch", ".." + str(scene.host)):
        done = scene.build("FROM base\n" + steal % f"source={source}" + "RUN false\n")
        assert "alive" not in printed(done)


@attack(
    AREA,
    "CVE-2024-23651, CVE-2024-11218",
    "one step exchanges a directory of a cache with a link to the host as fast as it can, while others mount a "
    "tmpfs, a "
    "cache and files below that directory, eight at a time",
    "mount points are only ever made inside the step's root",
)
def race_for_a_mount_point(scene: Scene) -> None:
    swap = f"mkdir -p d/x/y && ln -sfn {scene.host} l && /probe swap d l 4"
    steps = [f"FROM base AS swapper\nRUN --mount=type=cache,id=race,target=/c cd /c && {swap}"]
    for number in range(4):
        kinds = "cache,id=race,target=/c", f"tmpfs,target=/c/d/t{number}", f"secret,id=s,target=/c/d/x/s{number}"
        mounts = " ".join(f"--mount=type={kind}" for kind in kinds)
        lines = [f"RUN {mounts} echo {number}{turn} > /c/d/t{number}/f || true" for turn in range(8)]
        steps.append("\n".join([f"FROM base AS step{number}", *lines]))
    copies = "\n".join(
        f"COPY --from={name} /etc/passwd /{name}" for name in ("swapper", *(f"step{n}" for n in range(4)))
    )
    scene.file("s", "secret")
    done = scene.build("\n".join([*steps, f"FROM base\n{copies}"]), "--jobs=8", "--secret=id=s,src=s")
    assert "swapped" in done.stderr or done.returncode == 1


@attack(
    AREA,
    "CVE-2024-23652",
    "a step replaces the parent of a mount point by a link to the host, so that the mount point's removal hits there",
    "only the very directory that was made is removed",
)
def removal_of_mount_points(scene: Scene) -> None:
    for kind in (
        "tmpfs,target=/a/empty",
        "tmpfs,target=/a/dir/deep",
        "bind,source=.,target=/a/empty",
        "cache,target=/a/empty",
    ):
        script = f"mv /a /moved && ln -s {scene.host} /a && ls -la /"
        scene.build(f"FROM base\nRUN --mount=type={kind} {script}\n")
    script = f"mv /run /moved && ln -s {scene.host} /run && mkdir -p /moved/secrets"
    scene.file("s", "secret")
    scene.build(f"FROM base\nRUN --mount=type=secret,id=s,target=/run/canary {script}\n", "--secret=id=s,src=s")


@attack(
    AREA,
    "CVE-2024-9407",
    "mount options that reach mount(2): propagation, rbind, dev, suid, idmap; options twice; other types",
    "refused by the parser; no text of an option is ever handed to mount(2)",
)
def mount_options(scene: Scene) -> None:
    for options in (
        "type=bind,target=/m,bind-propagation=shared",
        "type=bind,target=/m,propagation=rshared",
        "type=bind,target=/m,rbind",
        "type=bind,target=/m,suid,dev,exec",
        "type=tmpfs,target=/m,size=1m,options=uid=0",
        "type=devtmpfs,target=/m",
        "type=proc,target=/m",
        "type=bind,target=/m,source=a\\,upperdir=/etc",
        "type=cache,target=/m,sharing=host",
        "type=bind,source=/,target=/m,from=/",
    ):
        scene.refused(scene.build(f"FROM base\nRUN --mount={options} true\n"))


@attack(
    AREA,
    "CVE-2024-9675",
    "caches with ids and targets that are paths: `..`, absolute ones, 4,000 characters, of another build's; a "
    "cache that "
    "is filled from a link",
    "an id is hashed to a name and never joined to a path",
)
def cache_ids_as_paths(scene: Scene) -> None:
    relative = "../../../../../../../../../.." + str(scene.host)
    ids = [relative, str(scene.host), "..", "a/../../..", "x" * 4000, "%2e%2e%2f", "~", ".", "$HOME"]
    lines = [f"RUN --mount=type=cache,id={each},target=/c rm -rf /c/*; touch /c/mine" for each in ids]
    scene.ok(scene.build("\n".join(["FROM base", *lines])))
    words = scene.image(tar_of(Member("h", tarfile.SYMTYPE, link=str(scene.host))))
    fill = "FROM base\nRUN --mount=type=cache,id=fill,from=evil,source=/h,target=/c cat /c/canary || true\n"
    assert "alive" not in printed(scene.build(fill, *words))
    names = [path.name for path in (scene.root / "cache-mounts").iterdir()]
    assert names
    assert all(len(name) == 64 and set(name) <= set("0123456789abcdef") for name in names)


@attack(
    AREA,
    "CVE-2024-45310, CVE-2024-0132",
    "mount targets that are links to the host, to /proc, to the root, dangling, or climb with `..`; as "
    "directory and file",
    "the end of the link inside the root, or an error; nothing appears on the host",
)
def targets_as_links(scene: Scene) -> None:
    links = {
        "h": str(scene.host),
        "n": f"{scene.host}/new",
        "up": "../../../../.." + str(scene.host),
        "r": "/",
        "o": "o",
    }
    words = scene.image(tar_of(*(Member(name, tarfile.SYMTYPE, link=link) for name, link in links.items())))
    scene.file("s", "secret")
    for target in ("/h", "/n", "/up/a/b", "/h/dir/canary", "/r", "/o/x", f"/../../..{scene.host}/deep/er"):
        for kind in (f"tmpfs,target={target}", f"secret,id=s,target={target}"):
            scene.build(f"FROM evil\nRUN --mount=type={kind} touch {target}/x; true\n", *words, "--secret=id=s,src=s")


@attack(
    AREA,
    "generic",
    "write to a read-only bind mount, to the context, to another stage, and remount it writable",
    "what a step writes into a bind mount is thrown away, the context is as before",
)
def bind_mounts_written(scene: Scene) -> None:
    scene.file("mine", "mine")
    dockerfile = (
        "FROM base AS other\nRUN echo o > /o\nFROM base\n"
        "RUN --mount=type=bind,target=/m ! touch /m/x && ! rm /m/mine && ! mount -o remount,rw /m\n"
        "RUN --mount=type=bind,target=/m,rw rm -rf /m/* && touch /m/x\n"
        "RUN --mount=type=bind,from=other,target=/m,rw rm -rf /m/*; true\n"
        "RUN --mount=type=bind,from=other,target=/m cat /m/o\n"
    )
    done = scene.ok(scene.build(dockerfile))
    assert printed(done)[-1] == "o"
    assert sorted(path.name for path in scene.cwd.iterdir()) == ["Dockerfile", "mine"]
