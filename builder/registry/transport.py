"""One HTTP exchange: a request out, status, headers and a stream back. The only importer of urllib3.

It pools connections, goes through proxies, speaks TLS, and ends by a time limit. It follows no redirect and repeats
nothing: that is the session's business, which knows what may be said again and to whom.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import urlsplit

from builder.registry.errors import CancelledError, RegistryError, UnreachableError, WrongContentError, shown
from builder.registry.proxies import proxy_for
from builder.registry.tls import TlsFiles, certificate_dirs, tls_context, tls_files
from cache.blobs import Readable
from cache.namedtuple import NamedTuple

if TYPE_CHECKING:
    import ssl

    import urllib3

CONNECT_SECONDS = 20.0
READ_SECONDS = 60.0
"""Without a single byte; a slow answer may take as long as it likes."""
_BLOCK = 1 << 18
_CONNECTIONS = 16
_NO_TLS = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST", "UNKNOWN_PROTOCOL")
_DRAINED = 4096
"""Bytes of an answer that are read rather than make a new connection."""

Body: TypeAlias = "bytes | Readable | None"


class TransportError(UnreachableError):
    """An exchange that came to nothing."""

    is_final = False
    """Whether another try would end the same way: no such name, a certificate that is not trusted."""
    is_refused = False
    """Whether nobody listens there, which seldom changes soon."""
    is_plain = False
    """Whether the server seems not to speak TLS at all."""


class Request(NamedTuple):
    """What to send. A body that is a stream needs a Content-Length among the headers."""

    method: str
    url: str
    headers: Mapping[str, str] = {}
    body: Body = None
    verify: bool = True
    """Whether the server's certificate is checked."""


class Reply:
    """A server's answer. Its body is read in pieces, at most once; closing gives the connection back or up."""

    def __init__(self, request: Request, response: urllib3.BaseHTTPResponse) -> None:
        self.url = request.url
        self.method = request.method
        self.status = response.status
        self.reason = response.reason or ""
        self.headers: Mapping[str, str] = response.headers
        self._response = response

    def read(self, size: int = -1, /) -> bytes:
        """Some bytes, at most `size`, none at the end. TransportError when the answer breaks off."""
        with _errors(self.url):
            # What has arrived, without waiting for more: nothing of it is lost when the connection breaks.
            return self._response.read1(size if size >= 0 else _BLOCK, decode_content=False)

    def content(self, limit: int) -> bytes:
        """The whole body. WrongContentError when it is longer than `limit` bytes."""
        parts, size = [], 0
        try:
            while chunk := self.read(min(_BLOCK, limit + 1 - size)):
                parts.append(chunk)
                size += len(chunk)
                if size > limit:
                    raise WrongContentError(f"{host_of(self.url)}: the answer is longer than {limit} bytes")
        finally:
            self.close()
        return b"".join(parts)

    def close(self) -> None:
        """Done with it; a connection whose answer was not read to its end is closed. Idempotent, never fails."""
        left = self._response.length_remaining
        if left is not None and left <= _DRAINED:
            self._response.drain_conn()
            self._response.release_conn()
        else:
            self._response.close()


class Transport:
    """The connections of one command. Any thread may use it."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._certificate_dirs = certificate_dirs(environ)
        self._lock = threading.Lock()
        self._files: dict[str, TlsFiles] = {}
        self._pools: dict[tuple[str, TlsFiles, bool, str | None], urllib3.PoolManager] = {}
        self._sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        self.cancelled = threading.Event()

    def send(self, request: Request) -> Reply:
        """One exchange. TransportError when there was no answer, CancelledError after `cancel`."""
        self.check()
        pool = self._pool(request)
        with _errors(request.url):
            response = pool.urlopen(
                request.method,
                request.url,
                headers={"User-Agent": "pybuild", "Accept-Encoding": "identity", **request.headers},
                body=request.body,
                retries=False,
                redirect=False,
                preload_content=False,
                decode_content=False,
            )
        return Reply(request, response)

    def check(self) -> None:
        """Raise CancelledError after `cancel`."""
        if self.cancelled.is_set():
            raise CancelledError("cancelled")

    def sleep(self, seconds: float) -> None:
        """Wait; CancelledError as soon as it is cancelled."""
        self.cancelled.wait(seconds)
        self.check()

    def cancel(self) -> None:
        """End every exchange, in whatever it waits for. Idempotent."""
        self.cancelled.set()
        for connected in list(self._sockets):
            with contextlib.suppress(OSError):  # SSLSocket's own would pull the rug from under a reading thread
                socket.socket.shutdown(connected, socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the connections that nobody uses. Idempotent."""
        with self._lock:
            for pool in self._pools.values():
                pool.clear()
            self._pools.clear()

    def _pool(self, request: Request) -> urllib3.PoolManager:
        proxy = proxy_for(request.url, self._environ)
        with self._lock:
            files = self._files_for(request.url)
            key = (urlsplit(request.url).scheme, files, request.verify, proxy)
            if key not in self._pools:
                context = tls_context(files, verify=request.verify) if request.url.startswith("https:") else None
                self._pools[key] = _new_pool(context, proxy)
                kinds = self._pools[key].pool_classes_by_scheme
                noted = {scheme: _noted(kind, self._sockets.add) for scheme, kind in kinds.items()}
                self._pools[key].pool_classes_by_scheme = noted
            return self._pools[key]

    def _files_for(self, url: str) -> TlsFiles:
        host = host_of(url)
        if not url.startswith("https:"):
            return TlsFiles()
        if host not in self._files:
            self._files[host] = tls_files(host, self._certificate_dirs)
        return self._files[host]


def _new_pool(context: ssl.SSLContext | None, proxy: str | None) -> urllib3.PoolManager:
    import urllib3

    urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)  # somebody said so
    options: dict[str, Any] = {
        "num_pools": 8,
        "maxsize": _CONNECTIONS,
        "block": False,
        "timeout": urllib3.Timeout(connect=CONNECT_SECONDS, read=READ_SECONDS),
        "ssl_context": context,
        "blocksize": _BLOCK,
    }
    if proxy is None:
        return urllib3.PoolManager(**options)
    parts = urlsplit(proxy)
    if parts.scheme in ("socks5", "socks5h"):
        from urllib3.contrib.socks import SOCKSProxyManager

        # The proxy looks names up, as with docker and podman, for which the two are the same.
        return SOCKSProxyManager(parts._replace(scheme="socks5h").geturl(), **options)
    if parts.scheme not in ("http", "https"):
        hint = "an http://, https:// or socks5:// proxy is"
        raise RegistryError(f'proxy scheme "{parts.scheme}" is not supported', hint=hint)
    headers = urllib3.make_headers(proxy_basic_auth=parts.netloc.rpartition("@")[0] or None)
    bare = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    return urllib3.ProxyManager(bare, proxy_headers=headers, **options)


def _noted(pool: type[urllib3.HTTPConnectionPool], note: Callable[[socket.socket], None]) -> Any:
    """The class of a pool that tells of every connection which is made."""
    base = pool.ConnectionCls

    def connect(self: Any) -> None:
        base.connect(self)
        note(self.sock)

    return type(pool.__name__, (pool,), {"ConnectionCls": type(base.__name__, (base,), {"connect": connect})})


def host_of(url: str) -> str:
    """The host (and port) of a URL: what a message may show of it, since queries hold signatures."""
    return urlsplit(url).netloc.rpartition("@")[2]


@contextmanager
def _errors(url: str) -> Iterator[None]:
    """Turn what urllib3 and the system raise into a TransportError."""
    import ssl

    from urllib3 import exceptions

    try:
        yield
    except exceptions.ProxyError as error:
        raise _failed(f"{host_of(url)}: the proxy fails: {_reason(error.original_error)}", "see HTTPS_PROXY") from error
    except exceptions.SSLError as error:
        raise _tls_failed(url, error) from error
    except exceptions.NameResolutionError as error:
        failed = _failed(f"{host_of(url)}: the name cannot be resolved", "check the name and the network")
        failed.is_final = f"[Errno {socket.EAI_AGAIN}]" not in str(error)
        raise failed from error
    except exceptions.NewConnectionError as error:
        failed = _failed(f"{host_of(url)}: {_reason(error)}", "check the address, the network and the proxy")
        failed.is_refused = True
        raise failed from error
    except exceptions.TimeoutError as error:
        raise _failed(f"{host_of(url)}: no answer in time", "check the network and the proxy") from error
    except exceptions.HTTPError as error:
        raise _failed(f"{host_of(url)}: {_reason(error)}", "check the address, the network and the proxy") from error
    except ssl.SSLError as error:
        raise _tls_failed(url, error) from error
    except OSError as error:
        raise _failed(f"{host_of(url)}: {_reason(error)}", "check the address, the network and the proxy") from error
    except ValueError as error:
        final = _failed(f"{host_of(url)}: the address or a header is not valid: {_reason(error)}", None)
        final.is_final = True
        raise final from error


def _failed(message: str, hint: str | None) -> TransportError:
    return TransportError(message, hint=hint)


def _tls_failed(url: str, error: Exception) -> TransportError:
    text = str(error)
    host = host_of(url)
    if "CERTIFICATE_VERIFY_FAILED" in text:
        why = text.partition("certificate verify failed: ")[2].partition(" (_ssl")[0] or "it cannot be verified"
        failed = _failed(
            f"{host}: the certificate is not trusted: {shown(why)}",
            f"put the authority's certificate into /etc/containers/certs.d/{host}/ca.crt",
        )
        failed.is_final = True
        return failed
    failed = _failed(f"{host}: TLS fails: {_reason(error)}", "see the certificates in certs.d, and the clock")
    failed.is_plain = any(sign in text for sign in _NO_TLS)
    failed.is_final = "alert" in text.lower()
    if failed.is_plain:
        failed.hint = "the server does not speak TLS: say so in registries.conf, or with --tls-verify=false"
    return failed


def _reason(error: BaseException) -> str:
    """The innermost words of a chain of errors, without addresses in memory."""
    import os

    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, OSError) and inner.errno and inner.errno > 0:
            return os.strerror(inner.errno).lower()
        nested = [each for each in inner.args if isinstance(each, BaseException)]
        inner = nested[0] if nested else inner.__cause__ or inner.__context__
    return shown(str(error).rpartition(">: ")[2] or type(error).__name__)
