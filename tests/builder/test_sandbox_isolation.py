from __future__ import annotations

import contextlib
import os
import stat
import time
from pathlib import Path

import pytest
from sandboxes import PATH, Box

from builder.errors import BuildError
from builder.sandbox.filesystems import MASKED_IN_PROC, MASKED_IN_SYS, READ_ONLY_PATHS
from builder.sandbox.wire import CommandError
from tests.conftest import require


def status(box: Box, *fields: str, **spec: object) -> dict[str, str]:
    lines = box.run("cat /proc/self/status", **spec).lines
    pairs = dict(line.split(":", 1) for line in lines)
    return {field: pairs[field].strip() for field in fields}


def test_every_namespace_but_the_network_is_new(box: Box) -> None:
    inside = dict(
        line.split() for line in box.run('for n in /proc/self/ns/*; do echo "${n##*/} $(readlink $n)"; done').lines
    )
    same = {
        name
        for name in ("mnt", "pid", "ipc", "uts", "cgroup", "net")
        if inside[name] == os.readlink(f"/proc/self/ns/{name}")
    }
    assert same == {"net"}


def test_network_none_has_loopback_that_works_and_nothing_else(box: Box) -> None:
    result = box.run("ls /sys/class/net; ip -o addr show lo; cat /proc/net/route | wc -l", network="none")
    assert result.lines[0] == "lo"
    assert "127.0.0.1/8" in result.out
    assert result.lines[-1] == "1"


def test_the_program_is_pid_1_with_a_session_of_its_own(box: Box) -> None:
    assert box.run("echo $$; awk '{print $4, $5, $6}' /proc/1/stat").lines == ["1", "0 1 1"]


def test_root_has_the_default_capabilities_and_a_filter(box: Box) -> None:
    expected = "00000000a80425fb"
    none = "0" * 16
    fields = status(box, "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp")
    assert fields == {
        "CapInh": none,
        "CapPrm": expected,
        "CapEff": expected,
        "CapBnd": expected,
        "CapAmb": none,
        "NoNewPrivs": "0",
        "Seccomp": "2",
    }


def test_another_user_has_no_capabilities_but_the_same_bounds(box: Box) -> None:
    fields = status(box, "CapInh", "CapPrm", "CapEff", "CapBnd", "Seccomp", user="app")
    assert set(fields.values()) == {"0" * 16, "00000000a80425fb", "2"}
    assert fields["CapBnd"] == "00000000a80425fb"


def test_fewer_capabilities_and_no_new_privileges(box: Box) -> None:
    fields = status(box, "CapEff", "CapBnd", "NoNewPrivs", capabilities=("CAP_CHOWN",), no_new_privileges=True)
    assert fields == {"CapEff": f"{1:016x}", "CapBnd": f"{1:016x}", "NoNewPrivs": "1"}


def test_a_capability_that_does_not_exist_is_refused(box: Box) -> None:
    with pytest.raises(BuildError, match='unknown capability "CAP_FLY"'):
        box.run("true", capabilities=("CAP_FLY",))


def test_insecure_has_everything_and_no_filter(box: Box) -> None:
    fields = status(box, "CapEff", "Seccomp", insecure=True)
    own = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapPrm"))
    assert fields["Seccomp"] == "0"
    assert fields["CapEff"] == own.split()[1]
    assert box.run("mkdir /m && mount -t tmpfs none /m && touch /m/f && ls /m", insecure=True).lines == ["f"]
    assert "/dev/loop-control" in box.run("ls /dev/loop-control", insecure=True).out


@pytest.mark.parametrize(
    "command", ["unshare -m true", "unshare -U true", "mount -t tmpfs none /tmp", "mount -o remount,rw /sys"]
)
def test_namespaces_and_mounts_are_out_of_reach(box: Box, command: str) -> None:
    result = box.run(command)
    assert result.code != 0
    assert "not permitted" in result.err or "denied" in result.err


def test_masked_files_are_empty_and_masked_directories_too(box: Box) -> None:
    script = (
        'for p in "$@"; do [ -d $p ] && echo $(ls -A $p | wc -l); [ -f $p ] && cat $p; [ -c $p ] && cat $p; done; true'
    )
    result = box.run("/bin/sh", "-c", script, "sh", *MASKED_IN_PROC, *MASKED_IN_SYS)
    assert set(result.lines) == {"0"}
    assert box.run("echo x > /proc/keys; cat /proc/keys").out == ""


def test_kernel_settings_cannot_be_written(box: Box) -> None:
    script = 'for p in "$@"; do [ -e $p ] && grep " $p " /proc/mounts; done; true'
    mounts = box.run("/bin/sh", "-c", script, "sh", *READ_ONLY_PATHS, "/sys").lines
    assert mounts
    assert all(line.split()[3].startswith("ro,") for line in mounts)
    result = box.run("echo 1 > /proc/sys/vm/drop_caches")
    assert result.code != 0
    assert "Read-only file system" in result.err


def test_devices_are_the_usual_ones(box: Box) -> None:
    usual = "fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero"
    assert " ".join(sorted(box.run("ls /dev").lines)) == usual
    modes = box.run(
        "stat -c '%n %a %F %t:%T' /dev/null /dev/tty /dev/shm /dev/mqueue; readlink /dev/ptmx; stat -c %a /dev/pts/ptmx"
    ).lines
    assert modes == [
        "/dev/null 666 character special file 1:3",
        "/dev/tty 666 character special file 5:0",
        "/dev/shm 1777 directory 0:0",
        "/dev/mqueue 1777 directory 0:0",
        "pts/ptmx",
        "666",
    ]
    assert box.run("head -c 4 /dev/zero | wc -c; echo x > /dev/full").err != ""


def test_shared_memory_has_the_size_asked_for(box: Box) -> None:
    command = "df -k /dev/shm | tail -1 | awk '{print $2}'"
    assert box.run(command).out == "65536\n"
    assert box.run(command, shm_size=128 << 20).out == "131072\n"


def test_a_node_of_a_host_disk_can_be_made_but_not_opened(box: Box) -> None:
    devices = [os.stat(f"/dev/{name}") for name in os.listdir("/dev")]
    disk = next(device.st_rdev for device in devices if stat.S_ISBLK(device.st_mode))
    result = box.run(
        f"mknod /disk b {os.major(disk)} {os.minor(disk)} && echo made; head -c 1 /disk;"
        "mknod /kmsg c 1 11; head -c 1 /kmsg"
    )
    assert result.lines == ["made"]
    assert result.err.count("not permitted") + result.err.count("denied") == 2


def test_a_usual_device_works_wherever_it_is_made(box: Box) -> None:
    assert box.run("mknod /tmp/null c 1 3 && echo x > /tmp/null && echo fine").out == "fine\n"


def test_control_groups_look_like_the_root(box: Box) -> None:
    result = box.run("cut -d: -f3 /proc/self/cgroup | sort -u; touch /sys/fs/cgroup/x")
    assert result.lines == ["/"]
    assert result.code != 0


def test_control_groups_are_gone_with_the_step_and_the_launcher(box: Box) -> None:
    def groups() -> list[str]:
        found = []
        for where, directories, _ in os.walk("/sys/fs/cgroup"):
            found += [f"{where}/{name}" for name in directories if f"pybuild-{launcher}-" in f"{where}/{name}"]
        return found

    running = box.start("sleep 60")
    launcher = box.launcher._pid
    inside = box.run("cut -d: -f3 /proc/1/cgroup").lines
    during = groups()
    box.launcher.kill(running.step.step)
    running.join()
    box.launcher.close()
    assert groups() == []
    assert during or set(inside) == {"/"}


def test_only_three_descriptors_are_open(box: Box) -> None:
    secret = os.open("/etc/passwd", os.O_RDONLY)
    os.set_inheritable(secret, True)
    try:
        assert box.run("ls /proc/1/fd; true").lines == ["0", "1", "2"]
    finally:
        os.close(secret)


def test_the_environment_is_only_what_was_given(box: Box) -> None:
    os.environ["BOX_SECRET"] = "x"
    try:
        lines = set(box.run("/bin/env", "-u", "nothing", env=(PATH, "A=1", "B=x=y", "E=")).lines)
    finally:
        del os.environ["BOX_SECRET"]
    assert lines == {PATH, "A=1", "B=x=y", "E=", "HOME=/root"}


def test_hostname_umask_and_stdin(box: Box) -> None:
    assert box.run("hostname; umask; cat; echo end").lines == ["buildkitsandbox", "0022", "end"]
    assert box.run("hostname; umask; cat", hostname="here", umask=0o27, stdin=b"text").out == "here\n0027\ntext"


def test_clocks_start_anew_when_asked(box: Box) -> None:
    """All that count from the machine's start; the time of day goes on."""
    require(os.path.exists("/proc/self/ns/time"), "this kernel has no time namespaces")
    started, now = time.clock_gettime(time.CLOCK_BOOTTIME), time.time()
    show = "cut -d ' ' -f 1 /proc/uptime; date +%s; readlink /proc/self/ns/time"
    uptime, seconds, namespace = box.run(show, restarts_clocks=True).lines
    assert float(uptime) < started
    assert float(seconds) >= int(now)
    assert namespace != os.readlink("/proc/self/ns/time")
    uptime, _, namespace = box.run(show).lines
    assert float(uptime) >= started
    assert namespace == os.readlink("/proc/self/ns/time")


def test_the_hosts_null_device_is_never_handed_in(box: Box) -> None:
    before = os.stat("/dev/null")
    assert box.run("chmod 600 /dev/stdin; chown 5:5 /dev/null; stat -c '%a %u' /dev/null").lines == ["600 5"]
    after = os.stat("/dev/null")
    assert (after.st_mode, after.st_uid) == (before.st_mode, before.st_uid)


def test_hosts_and_resolv_conf(box: Box) -> None:
    result = box.run("cat /etc/hosts; echo x >> /etc/hosts", extra_hosts=("one.example:10.0.0.1", "six:[::2]"))
    assert result.lines == [
        "127.0.0.1\tlocalhost buildkitsandbox",
        "::1\tlocalhost ip6-localhost ip6-loopback",
        "10.0.0.1\tone.example",
        "::2\tsix",
    ]
    assert "Read-only file system" in result.err
    assert box.run("cat /etc/resolv.conf", dns=("10.1.1.1",), dns_search=("a", "b")).lines[-2:] == [
        "nameserver 10.1.1.1",
        "search a b",
    ]


def test_the_launchers_interpreter_is_on_a_read_only_mount(box: Box) -> None:
    box.run("true")
    flags = os.statvfs(f"/proc/{box.launcher._pid}/exe").f_flag
    assert flags & os.ST_RDONLY


def test_a_script_of_proc_self_exe_cannot_write_the_interpreter(box: Box) -> None:
    layer = box.lower()
    (layer / "evil").write_text("#!/proc/self/exe\nimport os; os.open('/proc/self/exe', os.O_WRONLY)\n")
    (layer / "evil").chmod(0o755)
    before = os.stat(os.path.realpath("/proc/self/exe"))
    with contextlib.suppress(CommandError):
        assert box.run("/evil", "", root=box.root(layer)).code != 0
    after = os.stat(os.path.realpath("/proc/self/exe"))
    assert (after.st_mtime_ns, after.st_size, after.st_ino) == (before.st_mtime_ns, before.st_size, before.st_ino)


def test_nothing_of_the_host_is_in_the_mount_table(box: Box) -> None:
    mounts = [line.split()[1] for line in box.run("cat /proc/mounts").lines]
    assert mounts.count("/") == 1
    assert all(path == "/" or path.startswith(("/proc", "/dev", "/sys", "/etc/")) for path in mounts)
    assert "none" not in {line.split()[0] for line in box.run("cat /proc/mounts").lines}
