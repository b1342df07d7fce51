"""GET /: a page to draw a digit on, or to drop a picture on."""

import base64
import hashlib
import re
from pathlib import Path

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from pipeline.core.catalog import Entry
from pipeline.deploy.network import Identity
from pipeline.deploy.uploads import KINDS
from pipeline.html.render import render

TEMPLATE = Path(__file__).parent / "templates" / "serve.html"


def page_route(identity: Identity, entry: Entry) -> Route:
    """Return the route; the page is rendered once."""
    page = render(TEMPLATE, network=identity, entry=entry, kinds=",".join(KINDS))
    headers = {
        "Content-Security-Policy": "; ".join(
            [
                "default-src 'none'",
                f"script-src {_hashes(page, 'script')}",
                f"style-src {_hashes(page, 'style')}",
                "img-src data:",  # the empty icon
                "connect-src 'self'",
                "base-uri 'none'",
                "form-action 'none'",
                "frame-ancestors 'none'",
            ]
        ),
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
    }

    async def page_of_the_network(_: Request) -> Response:
        return HTMLResponse(page, headers=headers)

    return Route("/", page_of_the_network)


def _hashes(page: str, element: str) -> str:
    """List the inline elements of a kind, as sources of a Content-Security-Policy."""
    contents = re.findall(rf"<{element}>(.*?)</{element}>", page, re.DOTALL)
    digests = (base64.b64encode(hashlib.sha256(content.encode()).digest()).decode() for content in contents)
    return " ".join(f"'sha256-{digest}'" for digest in digests)
