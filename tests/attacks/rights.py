"""Attacks on rights: capabilities, users and groups, entitlements."""

from __future__ import annotations

import tarfile

from tests.attacks.catalogue import attack
from tests.attacks.scene import Member, Scene, printed, tar_of

AREA = "Rights and entitlements"
STATUS = "cat /proc/self/status"
DEFAULT_CAPABILITIES = "00000000a80425fb"
FILTERED = "grep ^Seccomp: /proc/self/status"


def fields(lines: list[str]) -> dict[str, str]:
    return {name: value.strip() for name, colon, value in (line.partition(":") for line in lines) if colon}


@attack(
    AREA,
    "CVE-2022-27651, CVE-2022-29162",
    "inheritable and ambient capabilities, for root and for another user",
    "none; root has Docker's default ones, others none",
)
def inheritable_capabilities(scene: Scene) -> None:
    for user, permitted in (("root", DEFAULT_CAPABILITIES), ("app", "0" * 16)):
        done = scene.ok(scene.build(f"FROM base\nUSER {user}\nRUN {STATUS}\n"))
        found = fields(printed(done))
        assert [found[name] for name in ("CapInh", "CapAmb", "CapPrm", "CapEff")] == ["0" * 16] * 2 + [permitted] * 2
        assert found["CapBnd"] == DEFAULT_CAPABILITIES


@attack(
    AREA,
    "CVE-2026-61711",
    "steps of every kind without a seccomp filter: shell and exec form, heredocs, scripts, mounts, no network, `run`; "
    "ARG, ENV, LABEL and syntax lines that ask for none",
    "Seccomp: 2 in all of them",
)
def every_step_is_filtered(scene: Scene) -> None:
    ask = "seccomp=unconfined BUILDKIT_SECCOMP=0 SECCOMP=unconfined PRIVILEGED=true"
    lines = [
        "# escape=\\",
        "FROM base",
        f"LABEL {ask} io.buildkit.security=insecure",
        "ARG BUILDKIT_SANDBOX_SECURITY=insecure",
        f"ENV {ask}",
        f"RUN {FILTERED}",
        'RUN ["grep", "^Seccomp:", "/proc/self/status"]',
        f"RUN <<EOF\n{FILTERED}\nEOF",
        f"RUN <<EOF\n#!/bin/sh\n{FILTERED}\nEOF",
        f"RUN --network=none --mount=type=cache,target=/c --mount=type=tmpfs,target=/t {FILTERED}",
        f"RUN --security=sandbox {FILTERED}",
        'SHELL ["/bin/busybox", "sh", "-c"]',
        "USER app",
        f"RUN {FILTERED}",
        'ENTRYPOINT ["grep", "^Seccomp:", "/proc/self/status"]',
    ]
    done = scene.ok(scene.build("\n".join(lines), "-t", "x", "--build-arg", "BUILDKIT_SANDBOX_SECURITY=insecure"))
    # The same command on the same content is found, not run again.
    assert printed(done) == ["Seccomp:\t2"] * 6
    assert scene.ok(scene("run", "--rm", "x")).stdout == "Seccomp:\t2\n"


@attack(
    AREA,
    "CVE-2024-23653",
    "--security=insecure by RUN, by a heredoc, by ONBUILD of an image, for the debug shell; with similar entitlements",
    "refused before anything runs, with the option that grants it",
)
def insecure_without_leave(scene: Scene) -> None:
    insecure = "RUN --security=insecure touch /ran"
    image = scene.image(config={"OnBuild": [insecure]})
    for dockerfile, words in (
        (f"FROM base\n{insecure}\n", []),
        ("FROM base\nRUN --security=insecure <<EOF\ntouch /ran\nEOF\n", ["--allow", "network.host"]),
        ("FROM evil\nRUN true\n", image),
        (f"FROM base\n{insecure}\n", ["--debug-shell", "on-error"]),
    ):
        scene.refused(scene.build(dockerfile, *words), "security.insecure is not allowed", "--allow security.insecure")
    scene.refused(scene.build(f"FROM base\n{insecure}\n", "--allow", "security.Insecure"))


@attack(
    AREA,
    "CVE-2016-3697",
    "an /etc/passwd with users called 1000 and 01000 whose uid is 0; USER 1000, 1000:1000, 01000",
    "a number is a number",
)
def a_number_as_a_name(scene: Scene) -> None:
    passwd = b"root:x:0:0::/root:/bin/sh\n1000:x:0:0::/root:/bin/sh\n01000:x:0:0::/:/bin/sh\n"
    words = scene.image(tar_of(Member("etc/passwd", content=passwd, mode=0o644)))
    for user in ("1000", "1000:1000", "01000"):
        done = scene.ok(scene.build(f"FROM evil\nUSER {user}\nRUN id -u\n", *words))
        assert printed(done) == ["1000"]


@attack(
    AREA,
    "CVE-2022-2990, CVE-2022-36109",
    "groups of the one who builds in the step; a file that everybody but one's own group may read",
    "the groups are root's or the image's, with the primary one among them",
)
def supplementary_groups(scene: Scene) -> None:
    assert scene.step("id -G") == ["0"]
    dockerfile = (
        "FROM base\nRUN echo x > /negative && chgrp app /negative && chmod 604 /negative\n"
        "USER app\nRUN id -G; cat /negative || echo kept out\n"
    )
    lines = printed(scene.ok(scene.build(dockerfile)))
    assert lines[0].split() == ["1000"]
    assert lines[-1] == "kept out"


@attack(
    AREA,
    "CVE-2024-9676",
    "an /etc/passwd or /etc/group that is a fifo, a device, a directory, a link to /dev/zero or /proc, larger than it "
    "should be, or binary; then USER and COPY --chown",
    "read inside the image, regular files of at most 1 MiB only; an error at once, never a hang",
)
def odd_passwd_files(scene: Scene) -> None:
    scene.file("f", "f")
    for member in (
        Member("etc/passwd", tarfile.FIFOTYPE),
        Member("etc/passwd", tarfile.SYMTYPE, link="/dev/zero"),
        Member("etc/passwd", tarfile.SYMTYPE, link="/proc/self/environ"),
        Member("etc/passwd", tarfile.SYMTYPE, link=f"{scene.host}/canary"),
        Member("etc/passwd", tarfile.CHRTYPE, device=(1, 5)),
        Member("etc/passwd", tarfile.DIRTYPE),
        Member("etc/passwd", content=b"a" * (2 << 20)),
        Member("etc/passwd", content=bytes(range(256)) * 64),
    ):
        words = scene.image(tar_of(member))
        done = scene.refused(scene.build("FROM evil\nUSER nobody\nRUN id\n", *words))
        assert "alive" not in done.stderr
        # To COPY an unknown name is root, as to BuildKit.
        done = scene.build("FROM evil\nCOPY --chown=nobody f /f\n", *words)
        assert done.returncode == 0 or "of the image: " in done.stderr


@attack(
    AREA,
    "generic",
    "set-user-id programs that a step makes, run as another user of the image, or found in the store by others",
    "they raise rights inside the step only, within its bounding set; nobody else reaches the store",
)
def set_user_id_programs(scene: Scene) -> None:
    dockerfile = (
        "FROM base\nRUN mkdir /suid && cp /bin/busybox /suid/cat && chmod 4755 /suid/cat\nUSER app\n"
        "RUN /suid/cat /proc/self/status\n"
    )
    found = fields(printed(scene.ok(scene.build(dockerfile))))
    assert found["CapBnd"] == DEFAULT_CAPABILITIES
    assert int(found["CapEff"], 16) & ~int(DEFAULT_CAPABILITIES, 16) == 0
    (program,) = scene.root.glob("snapshots/*/diff/suid/cat")
    above = [parent for parent in program.parents if parent.is_relative_to(scene.root)]
    assert program.stat().st_uid != 0 or any(not parent.stat().st_mode & 0o001 for parent in above)
