"""Who may use the app: the page that it serves, and no other web page that the same browser has open; and how much a
visitor may send at once."""

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


class ShortMessages:
    """Refuses, of an ASGI ``app``, messages of more than ``most`` bytes. Gradio limits the files of an upload, but not
    what a message holds, where an image may stand as base64."""

    def __init__(self, app, most):
        self.app, self.most = app, most

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http" or scope["path"].endswith("/upload"):
            return await self.app(scope, receive, send)
        if any(name == b"content-length" and int(value) > self.most for name, value in scope["headers"]):
            return await refuse("http", send, 413, b"too large")
        received = 0

        async def counted():  # a message may come in parts, without its length
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            return message if received <= self.most else {"type": "http.disconnect"}

        await self.app(scope, counted, send)


async def refuse(kind, send, status=403, why=b"not from here"):
    if kind == "websocket":
        return await send({"type": "websocket.close", "code": 1008})
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": why})


def guards(host, share, max_upload):
    """The middleware of a server that listens at ``host`` and takes images of ``max_upload`` MB. Where anyone may come,
    any name is right: nobody knows by which the server is called."""
    from starlette.middleware import Middleware  # comes with Gradio, which not everyone has

    short = Middleware(ShortMessages, most=4 * max_upload * 2**20 // 3 + 2**16)  # base64, and what stands around it
    if share or host in EVERYWHERE:
        return [short]
    own = {*HERE, host, f"[{host}]"} | ({socket.gethostname(), socket.getfqdn()} if host not in HERE else set())
    return [Middleware(OwnPagesOnly, names={name.lower() for name in own}), short]
