"""Refusal of requests that no page of this server made, and the headers of every response.

A page that the user visits elsewhere can send requests to this machine. They are recognised by what browsers
add and pages cannot change: `Host` (DNS rebinding), `Origin`, `Referer` and `Sec-Fetch-Site`. Programs send
none of the last three. Not covered: other programs and users of this machine, which can reach a loopback
address as the user can; against them set a token.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, quote, urlsplit

from python_multipart.multipart import parse_options_header

from pleinair.app.server.v1.errors import ErrorAnswer, is_programmatic

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
READING = ("GET", "HEAD")
COOKIE = "pleinair_token"
SIGN_IN = "/token"  # the only page that is served without a token
SIGN_IN_BYTES = 16 * 2**10  # of a request to it
PUBLIC = ("/static/",)  # what that page needs
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "cache-control": "no-store",  # a route of immutable files sets its own
}


_PORT = re.compile(r":[0-9]{1,5}\Z")
_SECONDS = re.compile(r"[0-9]{1,12}")
LINK_SECONDS = 24 * 60 * 60
MOST_WRONG = 10  # wrong tokens of an address in `WRONG_SECONDS`
WRONG_SECONDS = 60.0


class Refusal(Exception):
    """Reason why a request is not served, and its HTTP status."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status, self.text = status, text


class WrongTokens:
    """Wrong tokens of the last minute, by the address that sent them."""

    def __init__(self) -> None:
        self._times: dict[str, deque[float]] = {}

    def check(self, address: str) -> None:
        """Raise `Refusal` for an address that has sent too many."""
        if len(self._recent(address)) >= MOST_WRONG:
            raise Refusal(429, "Too many wrong tokens. Try again in a minute.")

    def add(self, address: str) -> None:
        """Count one more."""
        recent = self._recent(address)
        recent.append(time.monotonic())
        self._times = {name: times for name in self._times if (times := self._recent(name))}
        self._times[address] = recent

    def _recent(self, address: str) -> deque[float]:
        times = self._times.get(address, deque(maxlen=MOST_WRONG))
        while times and times[0] < time.monotonic() - WRONG_SECONDS:
            times.popleft()
        return times


@dataclass(frozen=True)
class Rules:
    """What a server accepts.

    Args:
        hosts: values of the `Host` header, with the port where it is not that of the scheme.
        token: that every request but a `link` must have, as a bearer token or in the cookie; "" for none.
        max_body: bytes of a request.
    """

    hosts: frozenset[str]
    token: str = field(default="", repr=False)
    max_body: int = 128 * 2**20
    wrong: WrongTokens = field(default_factory=WrongTokens, repr=False, compare=False)

    @property
    def cookie(self) -> str:
        """Value of the cookie: a hash, so that the token itself is stored in no browser."""
        return hashlib.sha256(f"{COOKIE}:{self.token}".encode()).hexdigest() if self.token else ""

    def link(self, path: str) -> str:
        """Return a path with what lets anybody read it for `LINK_SECONDS`, where a token is needed at all."""
        if not self.token:
            return path
        expires = str(int(time.time()) + LINK_SECONDS)
        return f"{path}?expires={expires}&signature={self._signature(path, expires)}"

    def admits(self, path: str, query: str) -> bool:
        """Return whether a query is that of `link`, and has not expired."""
        fields = dict(parse_qsl(query))
        expires, signature = fields.get("expires", ""), fields.get("signature", "")
        if not _SECONDS.fullmatch(expires) or int(expires) < time.time():
            return False
        return hmac.compare_digest(signature.encode(), self._signature(path, expires).encode())

    def _signature(self, path: str, expires: str) -> str:
        return hmac.new(self.token.encode(), f"{path}?{expires}".encode(), "sha256").hexdigest()

    def accepts(self, token: str, address: str) -> bool:
        """Return whether a token is the right one, in constant time; raise `Refusal` after many wrong ones.

        Args:
            token: of the request.
            address: that sent it.
        """
        self.wrong.check(address)
        if hmac.compare_digest(token.encode(), self.token.encode()):
            return True
        self.wrong.add(address)
        return False


def allowed_hosts(bind: str, port: int, names: Iterable[str] = ()) -> frozenset[str]:
    """Return the values of the `Host` header by which a server may be called.

    Args:
        bind: the address that it listens on; the names of this machine's loopback count where it is one.
        port: that it listens on.
        names: further names, such as those of a reverse proxy; with a port, or without for any of them.
    """
    own = f"[{bind}]" if ":" in bind else bind
    local = (*LOOPBACK, own) if own in LOOPBACK else (own, "localhost", "127.0.0.1")
    return frozenset(f"{name}:{port}" for name in local) | frozenset(name.lower() for name in names)


class Guard:
    """ASGI middleware that refuses foreign requests before any route is reached.

    A body that turns out too long raises `Refusal` in the route that reads it; the application answers that.

    Args:
        app: the application.
        rules: what is served.
        page: returns the page of a refusal, by its status and text.
    """

    def __init__(self, app: ASGIApp, rules: Rules, page: Callable[[int, str], str] | None = None) -> None:
        self.app, self._rules, self._page = app, rules, page

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve or refuse a request; web sockets are closed."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        send = _with_headers(send)
        try:
            headers = _headers(scope)
            _check(scope, headers, self._rules)
            most = SIGN_IN_BYTES if scope["path"] == SIGN_IN else self._rules.max_body
            body = _Body(receive, _length(headers, most), most)
        except Refusal as refusal:
            await self._refuse(scope, send, refusal)
        else:
            await self.app(scope, body.receive, send)

    async def _refuse(self, scope: Scope, send: Send, refusal: Refusal) -> None:
        """Answer with a page or JSON; a browser without a token is led to where it can give it."""
        accept = b", ".join(value for name, value in scope["headers"] if name.lower() == b"accept")
        is_api = is_programmatic(scope["path"])
        is_browser, status, headers = b"text/html" in accept and not is_api, refusal.status, []
        if status == 401:
            headers.append((b"www-authenticate", b"Bearer"))
        if status == 401 and is_browser:
            wanted = _address_of(scope) if scope["method"] in READING else "/"
            status = 303
            headers.append((b"location", f"{SIGN_IN}?next={quote(wanted)}".encode()))
        if is_browser and self._page:
            headers.append((b"content-type", b"text/html; charset=utf-8"))
            body = self._page(refusal.status, refusal.text).encode()
        else:
            headers.append((b"content-type", b"application/json"))
            answer = ErrorAnswer.of(refusal.status, refusal.text)
            body = answer.model_dump_json().encode()
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def _address_of(scope: Scope) -> str:
    query = _query_of(scope)
    return f"{scope['path']}?{query}" if query else str(scope["path"])


def _query_of(scope: Scope) -> str:
    return str(scope.get("query_string", b"").decode("latin-1"))


Headers = dict[str, list[str]]


def _headers(scope: Scope) -> Headers:
    headers: Headers = {}
    for name, value in scope["headers"]:
        headers.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1").strip())
    return headers


def _single(headers: Headers, name: str) -> str | None:
    values = headers.get(name, [])
    if len(values) > 1:
        raise Refusal(400, f"The request has {len(values)} headers {name}.")
    return values[0] if values else None


def _check(scope: Scope, headers: Headers, rules: Rules) -> None:
    """Raise `Refusal` for a request that must not be served."""
    host = (_single(headers, "host") or "").lower()
    name = _PORT.sub("", host)
    if host not in rules.hosts and (name not in rules.hosts or _PORT.search(name)):
        raise Refusal(421, "This server is not called by this name. Allow it with `--host-name`.")
    for name in ("origin", "referer"):
        sender = _single(headers, name)
        if sender is not None and not _is_from(sender, host):
            if name == "referer" and scope["method"] in READING:
                continue  # a link on another page; what that page could do with it, the next check refuses
            raise Refusal(403, "The request comes from another site.")
    site, mode = _single(headers, "sec-fetch-site"), _single(headers, "sec-fetch-mode")
    is_followed = (
        scope["method"] in READING and mode == "navigate" and _single(headers, "sec-fetch-dest") == "document"
    )
    if site not in (None, "same-origin", "none") and not is_followed:
        raise Refusal(403, "The request comes from another site.")
    _, options = parse_options_header(_single(headers, "content-type"))
    if options.get(b"charset", b"utf-8").lower() not in (
        b"utf-8",
        b"utf8",
    ):  # others can have half characters
        raise Refusal(415, "Texts must be in UTF-8.")
    if rules.token and scope["path"] != SIGN_IN and not scope["path"].startswith(PUBLIC):
        _check_token(scope, headers, rules)


def _is_from(sender: str, host: str) -> bool:
    """Return whether an `Origin` or `Referer` is a page of this server; "null" is none."""
    try:
        parts = urlsplit(sender)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and parts.netloc.lower() == host


def _check_token(scope: Scope, headers: Headers, rules: Rules) -> None:
    if scope["method"] in READING and rules.admits(scope["path"], _query_of(scope)):
        return
    address = (scope.get("client") or ("",))[0]
    scheme, _, token = (_single(headers, "authorization") or "").partition(" ")
    if has_cookie(headers.get("cookie", []), rules):
        return
    if scheme.lower() == "bearer" and rules.accepts(token.strip(), address):
        return
    is_wrong = bool(headers.get("authorization"))
    raise Refusal(401, "This is not the server's token." if is_wrong else "This server needs a token.")


def has_cookie(values: Iterable[str], rules: Rules) -> bool:
    """Return whether one of the `Cookie` headers has the right cookie, in constant time."""
    return hmac.compare_digest(_cookie(values).encode(), rules.cookie.encode())


def _cookie(values: Iterable[str]) -> str:
    cookies: SimpleCookie = SimpleCookie()
    try:
        cookies.load("; ".join(values))
    except CookieError:
        return ""
    return cookies[COOKIE].value if COOKIE in cookies else ""


def _length(headers: Headers, limit: int) -> int | None:
    """Return the body's length, None where it is not declared; raise `Refusal` for one over the limit."""
    text = _single(headers, "content-length")
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal()):
        raise Refusal(400, "The request's length is not a number.")
    if len(text) > len(str(limit)) or int(text) > limit:
        raise Refusal(413, f"The request is larger than {limit:,} bytes.")
    return int(text)


class _Body:
    """Body of a request, whose bytes are counted as they come."""

    def __init__(self, receive: Receive, length: int | None, limit: int) -> None:
        self._receive, self._limit = receive, limit if length is None else length
        self._bytes = 0

    async def receive(self) -> Message:
        message = await self._receive()
        self._bytes += len(message.get("body", b""))
        if self._bytes > self._limit:
            raise Refusal(413, f"The request is larger than {self._limit:,} bytes.")
        return message


def _with_headers(send: Send) -> Send:
    """Return a `send` that adds `HEADERS` to a response, where the route did not set its own."""

    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            present = {name.lower() for name, _ in message.get("headers", [])}
            added = [
                (name.encode(), value.encode())
                for name, value in HEADERS.items()
                if name.encode() not in present
            ]
            message["headers"] = [*message.get("headers", []), *added]
        await send(message)

    return send_with_headers
