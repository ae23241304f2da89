"""The attributes of a frontend: what each text comes to, what is refused, and that the command line ends there."""

from __future__ import annotations

import pytest

from builder.cli import main
from builder.errors import UsageError
from builder.frontend_options import CacheImport, FrontendOptions, read_options
from builder.frontend_values import ExtraHost, Ulimit, cpu_set
from builder.options import BuildOptions
from builder.resources import attributes, parse_limits
from builder.sandbox.spec import Limits
from grammar.lint import LintConfig
from tests.builder.planning import HOST
from tests.builder.test_build_flags import options_of


def read(**found: str) -> FrontendOptions:
    """Attributes with `_` for their dashes."""
    return read_options({name.replace("_", "-"): value for name, value in found.items()}, HOST)


def test_nothing_given_is_the_defaults() -> None:
    assert read_options({}, HOST) == FrontendOptions()


def test_build_args_that_are_for_the_builder() -> None:
    found = read_options(
        {
            "hostname": "a",
            "multi-platform": "false",
            "build-arg:BUILDKIT_SANDBOX_HOSTNAME": "b",
            "build-arg:BUILDKIT_MULTI_PLATFORM": "T",
            "build-arg:BUILDKIT_CACHE_MOUNT_NS": "ns",
            "build-arg:BUILDKIT_DOCKERFILE_CHECK": "skip=A, B;error=1",
            "label:x": "y",
        },
        HOST,
    )
    assert (found.hostname, found.multi_platform, found.cache_namespace) == ("b", True, "ns")
    assert found.check == LintConfig(skip=frozenset({"A", "B"}), error=True)
    assert found.labels == {"x": "y"}
    assert read(hostname="a").hostname == "a"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A=1.2.3.4", [ExtraHost("a", "1.2.3.4")]),
        ("a=1.2.3.4,b=::1", [ExtraHost("a", "1.2.3.4"), ExtraHost("b", "::1")]),
        ("a=2001:DB8:0:0::1", [ExtraHost("a", "2001:db8::1")]),
        ("a=::ffff:1.2.3.4", [ExtraHost("a", "1.2.3.4")]),
        ('"a=1.2.3.4"', [ExtraHost("a", "1.2.3.4")]),
        ("=1.2.3.4", [ExtraHost("", "1.2.3.4")]),
        ("", []),
    ],
)
def test_extra_hosts(text: str, expected: list[ExtraHost]) -> None:
    assert list(read(add_hosts=text).extra_hosts) == expected


def test_ulimits() -> None:
    assert read(ulimit="nofile=+1:-1,locks=-5").ulimits == (Ulimit("nofile", 1, -1), Ulimit("locks", -5, -5))


def test_stages_without_cache() -> None:
    assert [read().no_cache, read(no_cache="").no_cache, read(no_cache="a,b").no_cache] == [None, (), ("a", "b")]


def test_cache_imports() -> None:
    found = read(
        cache_imports='[{"Type": "local", "Attrs": {"src": "x"}}, {"type": "gha", "attrs": {"a": null}}]',
        cache_from="a,b",
    )
    images = [CacheImport("registry", {"ref": name}) for name in "ab"]
    assert found.cache_imports == (CacheImport("local", {"src": "x"}), CacheImport("gha", {"a": ""}), *images)
    assert read(cache_imports="null").cache_imports == ()


def test_attestations() -> None:
    found = read_options({"attest:SBOM": "", "build-arg:BUILDKIT_ATTEST_PROVENANCE": "mode=max,disabled"}, HOST)
    assert found.attestations == {"sbom": {}, "provenance": {"mode": "max", "disabled": ""}}


REFUSED = {
    "platform": ["linux/amd64,", "linux/amd64, linux/arm64", "nope", "a/b/c/d", "linux/"],
    "multi-platform": ["yes", "TrUe", "2"],
    "image-resolve-mode": ["PULL", "bogus"],
    "add-hosts": ["a", "a=", "a=x", "a=1.2.3", "a=01.2.3.4", "a=[::1]", "a=fe80::1%eth0", "a=1.2.3.4,", 'a="x"', "\n"],
    "shm-size": ["64m", "1.5", " 1", "0x10", "9223372036854775808", "1_000", "\u0661"],
    "ulimit": ["nofile", "nofile=", "nofile=1:", "nofile=:1", "=1", "NOFILE=1", "as=1", "nofile=2:1", "nofile=-1:5",
               "nofile=1:2:3", "nofile=a", "nofile=1,"],
    "force-network-mode": ["default", "bridge", "Host", "unset"],
    "memory": ["0", "-1", "1m", "9223372036854775808"],
    "memswap": ["0", "-2", "x"],
    "cpushares": ["0", "-1", "+5", "18446744073709551616"],
    "cpuperiod": ["0", "junk", "1.5"],
    "cpuquota": ["0", "-1"],
    "cpusetcpus": ["3-0", "a", "0-", "-1", "1-2-3", "8193", "0-8193", "1 2", "0x1"],
    "cpusetmems": ["1;2"],
    "cache-imports": ["{", "{}", "[1]", '[{"Type": 1}]', '[{"Attrs": {"a": 1}}]'],
    "attest:nope": [""],
    "attest:sbom": ['generator="x', "generator=", "generator=A B"],
    "build-arg:BUILDKIT_DOCKERFILE_CHECK": ["nope", "error=x", "skip", "skip=a;error=1;x=b"],
    "build-arg:BUILDKIT_MULTI_PLATFORM": ["maybe"],
    "build-arg:BUILDKIT_DISABLE_FILEOP": ["1"],
    "override-copy-image": ["x"],
}  # fmt: skip


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, texts in REFUSED.items() for text in texts])
def test_refused(name: str, text: str) -> None:
    with pytest.raises(UsageError):
        read_options({name: text}, HOST)


def test_one_platform_is_not_several() -> None:
    with pytest.raises(UsageError, match="allows one platform"):
        read(platform="linux/amd64,linux/arm64", multi_platform="0")
    assert not read(platform="linux/amd64", multi_platform="0").multi_platform


def test_a_cpu_set_as_the_kernel_takes_it() -> None:
    texts = [" 0 - 3 ,, 05,+7", ",", "8192", "0-0"]
    assert [cpu_set(text, "cpusetcpus") for text in texts] == ["0-3,5,7", "", "8192", "0-0"]
    assert parse_limits(["cpu-period=1000", '"cpuset-mems=0, 2"']) == Limits(cpu_period=1000, cpuset_mems="0,2")


def test_resources_as_attributes() -> None:
    assert attributes(["memory=1k,memory-swap=-1,cpu-shares=5"]) == {
        "memory": "1024",
        "memswap": "-1",
        "cpushares": "5",
    }


def test_words_become_attributes() -> None:
    args = ["--add-host", "A:[::1]", "--add-host=b=1.2.3.4", "--ulimit", "core=0", "--shm-size", "1m", "--network=host"]
    options = options_of(*args, "--no-cache-filter", "a,b", "--build-arg", "BUILDKIT_SANDBOX_HOSTNAME=h")
    assert options == BuildOptions(
        build_args={"BUILDKIT_SANDBOX_HOSTNAME": "h"},
        hostname="h",
        extra_hosts=("a:::1", "b:1.2.3.4"),
        ulimits=("core=0:0",),
        shm_size=1 << 20,
        network="host",
        no_cache_filter=("a", "b"),
    )
    assert options_of("--platform", "linux/arm64/v8,linux/arm").platforms == ("linux/arm64", "linux/arm/v7")


@pytest.mark.parametrize(
    "words",
    [
        ("--add-host", "a=x"),
        ("--add-host", "a"),
        ("--add-host", "a:[::1"),
        ("--add-host", "a:1.2.3.4,b:1.2.3.4"),
        ("--ulimit", 'nofile=1"'),
        ("--ulimit", "nofile=1,core=1"),
        ("--ulimit", "as=1"),
        ("--shm-size", "x"),
        ("--network", "bogus"),
        ("--platform", "linux/amd64,"),
        ("--build-arg", "BUILDKIT_MULTI_PLATFORM=x"),
        ("--build-arg", "BUILDKIT_DOCKERFILE_CHECK=x"),
        ("--build-arg", "BUILDKIT_ATTEST_SBOM="),
    ],
)
def test_words_are_refused_as_attributes_are(words: tuple[str, str]) -> None:
    with pytest.raises(UsageError):
        options_of(*words)


@pytest.mark.parametrize("text", ["cpuset-cpus=3-0", "memory=0", "cpu-quota=-1", "cpu-shares=1", "cpu-period="])
def test_resources_are_refused_as_attributes_are(text: str) -> None:
    with pytest.raises(UsageError):
        parse_limits([text])


def test_a_bad_word_is_a_usage_error_of_the_program(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["build", "--ulimit", "nofile=2:1", "."]) == 2
    assert "soft limit above the hard one" in capsys.readouterr().err


def test_an_attestation_that_is_turned_off_is_no_error() -> None:
    assert options_of("--build-arg", "BUILDKIT_ATTEST_PROVENANCE=disabled=true").build_args
