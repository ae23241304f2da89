"""The proxies that --build-arg gives to every RUN. They may hold passwords, so no plan that is kept has them.

Source: Dockerfile reference, predefined ARGs.
"""

from __future__ import annotations

from collections.abc import Mapping

from builder.plan import ExecOp, Plan

_NAMES = ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")


def proxy_env(build_args: Mapping[str, str]) -> tuple[str, ...]:
    """Proxy variables in both spellings, as programs read either."""
    found: dict[str, str] = {}
    for key in sorted(build_args):
        if key.upper() in _NAMES:
            found[key.upper()] = build_args[key]
    return tuple(
        [f"{spelling}={found[name]}" for name in _NAMES if found.get(name) for spelling in (name, name.lower())]
    )


def with_proxies(plan: Plan, env: tuple[str, ...]) -> Plan:
    """The plan with these variables for every RUN; () takes them out."""
    if not env and not any(isinstance(vertex.op, ExecOp) and vertex.op.proxy_env for vertex in plan.vertices):
        return plan
    vertices = [
        vertex._replace(op=vertex.op._replace(proxy_env=env)) if isinstance(vertex.op, ExecOp) else vertex
        for vertex in plan.vertices
    ]
    return plan._replace(vertices=tuple(vertices))
