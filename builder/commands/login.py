"""log in to a registry, and keep the credentials where docker keeps them"""

from __future__ import annotations

import argparse
import sys

from builder.commands import Environment, registry_options
from builder.errors import BuildError, UsageError
from builder.registry.client import RegistryClient
from builder.registry.credentials import Credentials
from builder.registry.logins import registry_domain, save_credentials
from grammar.reference import DEFAULT_DOMAIN

_LIMIT = 64 << 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `pybuild login`."""
    add = parser.add_argument
    add("server", nargs="?", default=DEFAULT_DOMAIN, metavar="HOST[:PORT]", help=f"default: {DEFAULT_DOMAIN}")
    add("-u", "--username", default="", metavar="NAME", help="asked for when it is not given")
    add("--password-stdin", action="store_true", help="read the password from standard input, else it is asked for")
    add("-p", "--password", default=None, help=argparse.SUPPRESS)
    registry_options.add_tls_verify(parser)


def run(args: argparse.Namespace, env: Environment) -> int:
    """Try the credentials, and keep them when the registry takes them."""
    if args.password is not None:
        raise UsageError(
            "a password on the command line can be seen by others", hint="give it with --password-stdin"
        ) from None
    domain = registry_domain(args.server)
    who = Credentials(args.username or _ask_name(domain), _password(args, domain))
    with RegistryClient(env.environ, insecure=not args.tls_verify) as client:
        client.ping(domain, who)
    kept = save_credentials(domain, who, env.environ)
    env.stderr.write(f"credentials are kept in {kept}\n")
    env.stdout.write("Login Succeeded\n")
    return 0


def _ask_name(domain: str) -> str:
    if not sys.stdin.isatty():
        raise UsageError("login: the user name is missing", hint="give it with -u NAME")
    name = input(f"User name for {domain}: ").strip()
    if not name:
        raise UsageError("login: the user name is missing")
    return name


def _password(args: argparse.Namespace, domain: str) -> str:
    if args.password_stdin:
        if not args.username:
            raise UsageError("login: --password-stdin needs -u NAME")
        password = sys.stdin.read(_LIMIT).removesuffix("\n").removesuffix("\r")
    elif sys.stdin.isatty():
        from getpass import getpass

        password = getpass(f"Password for {domain}: ")
    else:
        raise UsageError("login: standard input is not a terminal", hint="give the password with --password-stdin")
    if not password:
        raise BuildError("login: the password is empty")
    return password
