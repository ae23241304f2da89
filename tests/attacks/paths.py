"""Attacks by images whose own /proc, /dev, /sys or other directories are links out, or something else."""

from __future__ import annotations

import tarfile

from tests.attacks.catalogue import attack
from tests.attacks.scene import Member, Scene, tar_of

AREA = "Links in the place of directories"


@attack(
    AREA,
    "CVE-2019-19921, CVE-2023-27561, CVE-2023-28642, CVE-2026-41579",
    "an image in which /proc, /dev, /sys, /dev/pts or /dev/shm is a link to a directory of the host, or to "
    "another place "
    "of the image",
    "refused, or covered by a new file system; nothing is made or removed in the host's directory",
)
def system_directories_as_links(scene: Scene) -> None:
    for name in ("proc", "sys", "dev"):
        for target in (str(scene.host), f"/tmp/../../../../../..{scene.host}", "/tmp"):
            tar = tar_of(Member(f".wh.{name}"), Member(name, tarfile.SYMTYPE, link=target))
            image = scene.image(tar_of(Member(name, tarfile.SYMTYPE, link=target)), tar, on_base=True)
            done = scene.build("FROM evil\nRUN touch /proc/x /dev/x /sys/x; ls /proc/1\n", *image)
            scene.refused(done, f"/{name} of the image is not a directory")
    links = [Member(f"dev/{name}", tarfile.SYMTYPE, link=str(scene.host)) for name in ("pts", "shm", "mqueue", "fd")]
    scene.ok(scene.build("FROM evil\nRUN touch /dev/shm/x && ls /dev/pts/ptmx\n", *scene.image(tar_of(*links))))


@attack(
    AREA,
    "CVE-2025-31133, CVE-2025-52565, CVE-2025-52881",
    "an image in which /dev/null, /dev/console, /dev/ptmx and /dev/pts/0 are links to host files, devices of "
    "its own, or "
    "directories",
    "/dev is the sandbox's own: what is masked is masked by a real null device, and a terminal is the sandbox's",
)
def devices_as_links(scene: Scene) -> None:
    target = f"{scene.host}/canary"
    members = [
        Member(f"dev/{name}", tarfile.SYMTYPE, link=target) for name in ("null", "console", "ptmx", "tty", "stdout")
    ]
    for tar in (
        tar_of(*members, Member("dev/pts/0", tarfile.SYMTYPE, link=target)),
        tar_of(
            Member("dev/null", content=b"x"), Member("dev/console", tarfile.DIRTYPE), Member("dev/ptmx", content=b"x")
        ),
        tar_of(Member("dev/null", tarfile.CHRTYPE, device=(1, 1), mode=0o666)),
    ):
        script = "stat -c %t:%T /dev/null; echo x > /dev/null; cat /proc/keys /proc/timer_list; echo done > /dev/stdout"
        done = scene.ok(scene.build(f"FROM evil\nRUN {script}\n", *scene.image(tar), "-t", "evil"))
        assert "1:3" in done.stderr
        ran = scene.ok(scene("run", "--rm", "-t", "evil", "sh", "-c", "tty; ls -l /dev/console; echo x > /dev/console"))
        assert "/dev/pts/0" in ran.stdout


@attack(
    AREA,
    "CVE-2019-16884, CVE-2023-28642",
    "mounts and volumes on /proc, in it, or on a link to it: by RUN, by VOLUME of a hostile image, by `run`",
    "refused",
)
def volumes_in_proc(scene: Scene) -> None:
    link = tar_of(Member("innocent", tarfile.SYMTYPE, link="/proc/self"))
    words = scene.image(link)
    for target in ("/proc/self/attr", "/innocent/attr"):
        dockerfile = f"FROM evil\nRUN --mount=type=tmpfs,target={target} true\n"
        scene.refused(scene.build(dockerfile, *words))
    for volume in ("/proc/acpi", "/innocent/net"):
        words = scene.image(link, config={"Volumes": {volume: {}}, "Cmd": ["true"]})
        scene.ok(scene.build("FROM evil\n", *words, "-t", "evil"))
        scene.refused(scene("run", "--rm", "evil"), "in /proc" if "innocent" not in volume else "")


@attack(
    AREA,
    "CVE-2024-21626, generic",
    "an image whose WorkingDir, Volumes, User, Env and Entrypoint lead upwards, into /proc, or are of the wrong type",
    "an error, or the place inside the root",
)
def hostile_config(scene: Scene) -> None:
    for config in (
        {"WorkingDir": "/proc/self/fd/5"},
        {"WorkingDir": "../../../../../.." + str(scene.host)},
        {"Volumes": {"../../.." + str(scene.host): {}, "/../..": {}}},
        {"Volumes": {str(scene.host): {}}, "WorkingDir": str(scene.host)},
        {"Env": ["=x", "A", "B=\x00", 7]},
        {"Entrypoint": {"a": 1}, "Cmd": [1, 2]},
        {"User": "0:0:0:0\n"},
        {"User": ["root"], "WorkingDir": 7},
    ):
        words = scene.image(config={"Cmd": ["sh", "-c", "pwd; touch escaped; rm -f canary"], **config})
        done = scene.build("FROM evil\nRUN touch made\n", *words, "-t", "evil")
        if done.returncode == 0:
            scene("run", "--rm", "evil")


@attack(
    AREA,
    "CVE-2018-15664, CVE-2024-45310",
    "COPY, WORKDIR and ADD to destinations that are links out of the root, to /proc/self/root, in a chain, or dangling",
    "they end inside the root",
)
def destinations_as_links(scene: Scene) -> None:
    links = {
        "a": str(scene.host),
        "b": f"../../../../../../../..{scene.host}",
        "c": f"/proc/self/root{scene.host}",
        "d": "e",
        "e": "/a/dir",
        "f": f"{scene.host}/dir/canary",
        "g": f"{scene.host}/new",
    }
    tar = tar_of(*(Member(name, tarfile.SYMTYPE, link=link) for name, link in links.items()))
    scene.file("canary", "dead")
    words = scene.image(tar)
    for name in links:
        lines = [
            f"COPY canary /{name}/canary",
            f"ADD canary /{name}/",
            f"WORKDIR /{name}/made",
            "RUN touch here ../there",
        ]
        for line in (*lines[:2], "\n".join(lines[2:]), f"COPY canary /{name}"):
            scene.build(f"FROM evil\n{line}\n", *words)


@attack(
    AREA,
    "CVE-2024-9341, generic",
    "local and tar output of an image with links out, absolute names and names with `..` into a directory",
    "links stay links; nothing is written through them",
)
def outputs_through_links(scene: Scene) -> None:
    members = [
        Member("out", tarfile.SYMTYPE, link=str(scene.host)),
        Member("etc/link", tarfile.SYMTYPE, link="../../../../.." + str(scene.host / "canary")),
    ]
    words = scene.image(
        tar_of(*members), tar_of(Member("out/canary", content=b"dead"), Member("etc/link2", content=b"x"))
    )
    (scene.cwd / "dest").mkdir()
    (scene.cwd / "dest/out").symlink_to(scene.host)
    (scene.cwd / "dest/tmp").symlink_to(scene.host)
    scene.give(scene.cwd)
    scene.build("FROM evil\n", *words, "-o", "type=local,dest=dest")
    scene.build("FROM evil\n", *words, "-o", "type=tar,dest=out.tar")
