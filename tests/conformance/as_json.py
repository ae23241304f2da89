"""Nodes of the grammar in the JSON form of the golden files."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from builder.frontend_options import FrontendOptions
from grammar import nodes
from grammar.errors import DockerfileError
from grammar.gitref import GitRef
from grammar.mount_flag import MountFlag, parse_mount
from grammar.platforms import Platform
from grammar.reference import Reference

Json = dict[str, Any]


def directives(syntax: nodes.Syntax | None, found: tuple[nodes.Directive, ...]) -> Json:
    return {
        "syntax": syntax._asdict() if syntax else None,
        "directives": [directive._asdict() for directive in found],
    }


def ast(tree: nodes.Ast) -> Json:
    return {
        "escape": tree.escape,
        "warnings": [{"short": warning.message, "line": warning.line} for warning in tree.warnings],
        "total": len(tree.nodes),
        "nodes": [_node(node) for node in tree.nodes],
    }


def _node(node: nodes.AstNode) -> Json:
    return {
        **_child(node),
        "start": node.range.start_line,
        "end": node.range.end_line,
        "heredocs": [heredoc._asdict() for heredoc in node.heredocs],
        "comments": list(node.comments),
    }


def _child(node: nodes.AstNode) -> Json:
    return {
        "instr": node.instr,
        "original": node.original,
        "flags": list(node.flags),
        "args": list(node.args),
        "json": node.json,
        "child": _child(node.child) if node.child else None,
    }


def meta_args(dockerfile: nodes.Dockerfile) -> list[Json]:
    return [_command(arg) for arg in dockerfile.meta_args]


def stages(dockerfile: nodes.Dockerfile) -> list[Json]:
    return [
        {
            "name": stage.name,
            "base": stage.base,
            "platform": stage.platform,
            "from": stage.keyword,
            "doc": stage.doc,
            "source": stage.source,
            "start": stage.range.start_line,
            "end": stage.range.end_line,
            "total": len(stage.commands),
            "commands": [_command(command) for command in stage.commands],
        }
        for stage in dockerfile.stages
    ]


def _lines(command: nodes.Instruction) -> Json:
    return {"start": command.range.start_line, "end": command.range.end_line}


def _command(command: nodes.Instruction) -> Json:
    return {"type": command.keyword, "name": command.name, **_lines(command), **_FIELDS[type(command)](command)}


def _arg(command: nodes.ArgInstruction) -> Json:
    return {"args": [arg._asdict() for arg in command.args]}


def _pairs(command: nodes.EnvInstruction | nodes.LabelInstruction) -> Json:
    return {"pairs": [pair._asdict() for pair in command.pairs]}


def _command_line(command: nodes.CommandLineInstruction) -> Json:
    return {
        "cmdline": None if command.cmdline is None else list(command.cmdline),
        "shell": command.shell,
        "files": [{"name": file.name, "data": file.data, "chomp": file.chomp} for file in command.files],
    }


def _run(command: nodes.RunInstruction) -> Json:
    mounts: list[Json] = []
    error: DockerfileError | None = None
    try:
        mounts = [mount(parse_mount(value, lambda text: text)) for value in command.mounts]
    except DockerfileError as failure:
        error = failure
    return {
        **_command_line(command),
        "flags_used": sorted({flag[2:].partition("=")[0] for flag in command.flags}),
        "network": command.network,
        "security": command.security,
        "devices": [device._asdict() for device in command.devices],
        "mounts": mounts,
        "mounts_error": error.message if error else None,
    }


def mount(flag: MountFlag) -> Json:
    fields = flag._asdict()
    fields["from"] = fields.pop("from_")
    fields["readonly"] = fields.pop("read_only")
    return fields


def _files(command: nodes.CopyInstruction | nodes.AddInstruction) -> Json:
    fields = {
        "sources": list(command.sources),
        "dest": command.dest,
        "contents": [content._asdict() for content in command.contents],
        "chown": command.chown,
        "chmod": command.chmod,
        "link": command.link,
        "exclude": list(command.exclude),
    }
    if isinstance(command, nodes.CopyInstruction):
        return {**fields, "from": command.from_, "parents": command.parents}
    own = {"checksum": command.checksum, "keep_git_dir": command.keep_git_dir, "unpack": command.unpack}
    return {**fields, **own}


def _healthcheck(command: nodes.HealthcheckInstruction) -> Json:
    names = ("interval", "timeout", "start_period", "start_interval", "retries")
    return {"test": list(command.test), **{name: getattr(command, name) for name in names}}


_FIELDS: dict[type, Callable[[Any], Json]] = {
    nodes.ArgInstruction: _arg,
    nodes.EnvInstruction: _pairs,
    nodes.LabelInstruction: _pairs,
    nodes.RunInstruction: _run,
    nodes.CmdInstruction: _command_line,
    nodes.EntrypointInstruction: _command_line,
    nodes.CopyInstruction: _files,
    nodes.AddInstruction: _files,
    nodes.ShellInstruction: lambda command: {"value": list(command.value)},
    nodes.ExposeInstruction: lambda command: {"ports": list(command.ports)},
    nodes.VolumeInstruction: lambda command: {"volumes": list(command.volumes)},
    nodes.OnbuildInstruction: lambda command: {"expression": command.expression},
    nodes.WorkdirInstruction: lambda command: {"value": command.path},
    nodes.UserInstruction: lambda command: {"value": command.user},
    nodes.StopSignalInstruction: lambda command: {"value": command.signal},
    nodes.MaintainerInstruction: lambda command: {"value": command.maintainer},
    nodes.HealthcheckInstruction: _healthcheck,
}


def reference(text: str, parsed: Reference) -> Json:
    return {
        "input": text,
        "error": None,
        "string": str(parsed),
        "name": parsed.name,
        "familiar_name": parsed.familiar_name,
        "familiar": parsed.familiar,
        "domain": parsed.domain,
        "path": parsed.path,
        "tag": parsed.tag or None,
        "digest": parsed.digest or None,
        "is_name_only": parsed.is_name_only,
        "tag_name_only": str(parsed.with_default_tag()),
        "docker_ref": str(parsed.pinned()),
    }


def git_ref(parsed: GitRef) -> Json:
    return {
        "Remote": parsed.remote,
        "ShortName": parsed.short_name,
        "Ref": parsed.ref,
        "SubDir": parsed.subdir,
        "Checksum": parsed.checksum,
        "KeepGitDir": parsed.keep_git_dir,
        "Submodules": parsed.submodules,
        "MTime": parsed.mtime,
        "FetchByCommit": parsed.fetch_by_commit,
        "IndistinguishableFromLocal": parsed.is_like_local,
        "UnencryptedTCP": parsed.is_unencrypted,
    }


def platform(parsed: Platform) -> Json:
    return {
        "os": parsed.os,
        "arch": parsed.architecture,
        "variant": parsed.variant,
        "osversion": parsed.os_version,
        "osfeatures": list(parsed.os_features),
        "format": str(parsed),
    }


_NETWORKS = {"sandbox": "UNSET", "host": "HOST", "none": "NONE"}


def frontend_options(options: FrontendOptions) -> Json:
    return {
        "build_args": dict(options.build_args),
        "cache_ns": options.cache_namespace,
        "cgroup_parent": options.cgroup_parent,
        "extra_hosts": [list(each) for each in options.extra_hosts],
        "hostname": options.hostname,
        "labels": dict(options.labels),
        "linux_resources": options.resources._asdict() if any(options.resources) else {},
        "multi_platform": options.multi_platform,
        "network": _NETWORKS[options.network],
        "resolve_mode": options.resolve_mode,
        "shm_size": options.shm_size,
        "target": options.target,
        "target_platforms": [str(each) for each in options.target_platforms],
        "ulimits": [each._asdict() for each in options.ulimits],
    }


def extra_hosts(golden: list[Any]) -> list[list[str]]:
    """A golden's hosts as [name, address], whichever way it writes one: an object, a pair, or one text."""
    found = []
    for each in golden:
        if isinstance(each, dict):
            fields = {key.lower(): value for key, value in each.items()}
            found.append([fields["host"], fields["ip"]])
        elif isinstance(each, str):
            found.append(re.split("[=: ]+", each, maxsplit=1))
        else:
            found.append(list(each))
    return found
