"""Who may use the app: the page that it serves, and no other web page that the same browser has open."""

import socket
from urllib.parse import urlsplit

EVERYWHERE = ("0.0.0.0", "::", "")
HERE = "127.0.0.1", "localhost", "[::1]"


class OwnPagesOnly:
    """Refuses, of an ASGI ``app``, what is asked for under a name that is not in ``names``, as after DNS rebinding, and
    what another page sends: a form of its own needs no permission to reach this machine.
    """

    def __init__(self, app, names):
        self.app, self.names = app, names

    async def __call__(self, scope, receive, send):
        headers = {name: value.decode("latin-1").lower() for name, value in scope.get("headers", ())}
        host, origin = headers.get(b"host", ""), headers.get(b"origin")
        known = {host, host.rpartition(":")[0]} & self.names  # with a port, or without
        own = origin is None or urlsplit(origin).netloc == host
        if scope["type"] in ("http", "websocket") and not (known and own):
            await refuse(scope["type"], send)
        else:
            await self.app(scope, receive, send)


async def refuse(kind, send):
    if kind == "websocket":
        return await send({"type": "websocket.close", "code": 1008})
    await send({"type": "http.response.start", "status": 403, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": b"not from here"})


def guards(host, share):
    """The middleware of a server that listens at ``host``: none where anyone may come, who knows by which names."""
    from starlette.middleware import Middleware  # comes with Gradio, which not everyone has

    if share or host in EVERYWHERE:
        return []
    own = {*HERE, host, f"[{host}]"} | ({socket.gethostname(), socket.getfqdn()} if host not in HERE else set())
    return [Middleware(OwnPagesOnly, names={name.lower() for name in own})]
