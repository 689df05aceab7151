"""The web page, and the headers that keep it to itself."""

import base64
import functools
import hashlib
import re
from importlib.resources import files

_INLINE = re.compile(r"<(script|style)>(.*?)</\1>", re.DOTALL)


@functools.cache
def page() -> tuple[str, dict[str, str]]:
    """Return the HTML of the page, and the headers to serve it with.

    The Content-Security-Policy lets the browser run the scripts and styles that the file holds,
    known by their hashes, and talk to the server it came from: nothing else, from nowhere else.
    """
    html = files("imprint.serve").joinpath("page.html").read_text(encoding="utf-8")
    policy = {
        "default-src": "'none'",
        "script-src": _hashes(html, "script"),
        "style-src": _hashes(html, "style"),
        "connect-src": "'self'",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
        "require-trusted-types-for": "'script'",
    }
    return html, {
        "Content-Security-Policy": "; ".join(f"{key} {value}" for key, value in policy.items()),
        "Cache-Control": "no-cache",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
    }


def _hashes(html: str, tag: str) -> str:
    """Return a source of the policy for each inline element ``tag`` of the page."""
    texts = [text for name, text in _INLINE.findall(html) if name == tag]
    digests = [hashlib.sha256(text.encode()).digest() for text in texts]
    return " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)
