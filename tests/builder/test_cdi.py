"""CDI specs: found, read, asked by name; what is malformed is an error that names the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.cdi.edits import DeviceNode, HostMount
from builder.cdi.registry import Registry
from builder.errors import BuildError

GPU: dict[str, Any] = {
    "cdiVersion": "0.6.0",
    "kind": "vendor.com/gpu",
    "devices": [
        {
            "name": "0",
            "containerEdits": {
                "deviceNodes": [{"path": "/dev/gpu0", "hostPath": "/dev/null", "permissions": "rw"}],
                "env": ["GPU=0"],
            },
        },
        {"name": "1", "containerEdits": {"deviceNodes": [{"path": "/dev/gpu1"}]}},
    ],
    "containerEdits": {
        "env": ["VENDOR=1"],
        "mounts": [{"hostPath": "/lib/x.so", "containerPath": "/usr/lib/x.so", "options": ["ro", "nosuid", "bind"]}],
        "additionalGids": [44],
    },
}


def registry(tmp_path: Path, **documents: Any) -> Registry:
    for name, document in documents.items():
        path = tmp_path / name.replace("_", ".")
        path.write_text(document if isinstance(document, str) else json.dumps(document))
    return Registry((str(tmp_path), str(tmp_path / "run")))


def test_a_device_with_what_all_of_its_kind_get(tmp_path: Path) -> None:
    (device,) = registry(tmp_path, gpu_json=GPU).find("vendor.com/gpu=0")
    assert device.name == "vendor.com/gpu=0"
    assert device.edits.env == ("VENDOR=1", "GPU=0")
    assert device.edits.nodes == (DeviceNode("/dev/gpu0", "/dev/null", permissions="rw"),)
    assert device.edits.mounts == (HostMount("/lib/x.so", "/usr/lib/x.so", True),)
    assert device.edits.groups == (44,)


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        ("vendor.com/gpu=1", ["1"]),
        ("vendor.com/gpu=*", ["0", "1"]),
        ("vendor.com/gpu", ["0"]),
        ("vendor.com/gpu=2", []),
        ("other.com/gpu", []),
    ],
)
def test_names(tmp_path: Path, wanted: str, names: list[str]) -> None:
    found = registry(tmp_path, gpu_json=GPU).find(wanted)
    assert [device.name for device in found] == [f"vendor.com/gpu={name}" for name in names]


def test_yaml_and_the_order_of_directories(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    text = 'cdiVersion: "0.5.0"\nkind: vendor.com/gpu\ndevices:\n- name: "0"\n  containerEdits:\n    env: [FROM=run]\n'
    (tmp_path / "run/gpu.yaml").write_text(text)
    (tmp_path / "ignored.txt").write_text("{")
    (device,) = registry(tmp_path, gpu_json=GPU).find("vendor.com/gpu=0")
    assert device.edits.env == ("FROM=run",)


def test_what_no_sandbox_does_is_said(tmp_path: Path) -> None:
    hooks = {
        **GPU,
        "containerEdits": {"hooks": [{"hookName": "createContainer", "path": "/bin/x"}], "intelRdt": {"a": 1}},
    }
    (device,) = registry(tmp_path, gpu_json=hooks).find("vendor.com/gpu=1")
    assert device.edits.unsupported == ("hooks", "intelRdt")


@pytest.mark.parametrize(
    "wanted", ["", "gpu", "vendor.com/gpu=", "vendor.com/../x=0", "/gpu=0", "vendor.com/gpu=a/b", "-/a=b", "1v/a=b"]
)
def test_names_that_are_none(tmp_path: Path, wanted: str) -> None:
    with pytest.raises(BuildError, match="is not VENDOR/CLASS=NAME"):
        registry(tmp_path, gpu_json=GPU).find(wanted)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("{", "Expecting"),
        ([], "list"),
        ({"kind": "a.b/c", "devices": []}, "'cdiVersion' is missing"),
        ({**GPU, "cdiVersion": "2.0.0"}, "version 2.0.0 is not known"),
        ({**GPU, "kind": "../x"}, "is not VENDOR/CLASS"),
        ({**GPU, "devices": [{"name": "../0"}]}, "is not VENDOR/CLASS"),
        ({**GPU, "devices": 3}, "int"),
        ({**GPU, "containerEdits": {"env": ["=x"]}}, "is not NAME=VALUE"),
        ({**GPU, "containerEdits": {"env": ["A"]}}, "is not NAME=VALUE"),
        ({**GPU, "containerEdits": {"deviceNodes": [{"path": "dev/x"}]}}, "is not absolute"),
        ({**GPU, "containerEdits": {"deviceNodes": [{"path": "/dev/x", "permissions": "all"}]}}, 'permissions "all"'),
        ({**GPU, "containerEdits": {"deviceNodes": [{"path": "/dev/x", "major": -1}]}}, 'number "-1"'),
        (
            {**GPU, "containerEdits": {"mounts": [{"hostPath": "/x", "containerPath": "/y", "options": ["shared"]}]}},
            '"shared"',
        ),
        ({**GPU, "containerEdits": {"mounts": [{"hostPath": "x", "containerPath": "/y"}]}}, "is not absolute"),
    ],
)
def test_a_bad_spec_is_an_error_that_names_it(tmp_path: Path, document: Any, message: str) -> None:
    with pytest.raises(BuildError) as caught:
        registry(tmp_path, gpu_json=document).find("vendor.com/gpu=0")
    assert message in str(caught.value)
    assert "gpu.json" in str(caught.value) or "VENDOR/CLASS" in message


def test_bad_yaml_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"gpu\.yaml"):
        registry(tmp_path, gpu_yaml="a: [").find("vendor.com/gpu=0")
    with pytest.raises(BuildError, match=r"gpu\.yaml"):
        registry(tmp_path, gpu_yaml="!!python/object/apply:os.system ['true']").find("vendor.com/gpu=0")


def test_the_hint_names_what_there_is(tmp_path: Path) -> None:
    assert "did you mean vendor.com/gpu=0?" in registry(tmp_path, gpu_json=GPU).hint("vendr.com/gpu=0")
    assert "no CDI spec" in Registry((str(tmp_path / "nowhere"),)).hint("x")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*GPU, "name", "path"]), inner, max_size=4)
    ),
)


@given(VALUES)
def test_any_document_is_devices_or_a_build_error(document: Any) -> None:
    from builder.cdi.registry import _devices

    for each in (document, {**GPU, "devices": document}, {**GPU, "containerEdits": document}):
        try:
            _devices(each, "spec.json")
        except BuildError:
            continue
