"""forget the credentials for a registry"""

from __future__ import annotations

import argparse

from builder.commands import Environment
from builder.registry.logins import registry_domain, remove_credentials
from grammar.reference import DEFAULT_DOMAIN


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `pybuild logout`."""
    parser.add_argument("server", nargs="?", default=DEFAULT_DOMAIN, metavar="HOST[:PORT]")


def run(args: argparse.Namespace, env: Environment) -> int:
    """Forget; not to be logged in is no error."""
    domain = registry_domain(args.server)
    removed = remove_credentials(domain, env.environ)
    if removed:
        env.stdout.write("".join(f"Removed the login for {domain} from {path}\n" for path in removed))
    else:
        env.stdout.write(f"Not logged in to {domain}\n")
    return 0
