"""Pictures and videos from the web, for those who ask for them: no other schemes, no endless answers."""

from __future__ import annotations

import os
import re
import time
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import urlsplit

from crossfake import __version__
from crossfake.datasets.sources.folder import VIDEOS
from crossfake.errors import UserError

FETCH_BYTES, FETCH_SECONDS = 50_000_000, 60.0  # of one URL, in all
_SILENCE = 15.0  # seconds that a server may say nothing
_SCHEMES = ("http", "https")


def is_url(name: str) -> bool:
    """Whether a name has a scheme, as ``https://`` is."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", name) is not None


def check_url(url: str, allowed: bool) -> UserError | None:
    """Why a URL is not to be fetched, or None."""
    if not allowed:
        return UserError(f"{url} is a URL, and none is fetched unasked", hint="add --allow-urls")
    try:
        fine = urlsplit(url).scheme.lower() in _SCHEMES and bool(urlsplit(url).hostname)
    except ValueError:
        fine = False
    if not fine:
        return UserError(f"{url} is no web address", hint="name one that starts with http or https")
    return None


def fetch(url: str, most_bytes: int = FETCH_BYTES, most_seconds: float = FETCH_SECONDS) -> tuple[bytes, bool]:
    """What is at a URL, and whether it is a video, by its content type or its name's ending.

    Redirects are followed to http and https alone, and never from https to http.

    Raises:
        UserError: it is no web address, cannot be reached, is too large or too slow.
    """
    if wrong := check_url(url, allowed=True):
        raise wrong
    until = time.monotonic() + most_seconds
    try:
        request = urllib.request.Request(url, headers={"User-Agent": f"crossfake/{__version__}"})
        with _opener().open(request, timeout=min(_SILENCE, most_seconds)) as answer:
            kind = answer.headers.get_content_type()
            parts: list[bytes] = []
            held = 0
            while part := answer.read1(1 << 16):
                parts.append(part)
                held += len(part)
                if held > most_bytes:
                    raise _failed(url, f"it has more than {most_bytes:,} bytes")
                if time.monotonic() > until:
                    raise _failed(url, f"it took longer than {most_seconds:g} seconds")
            length = answer.headers.get("Content-Length")
            if length and length.isdecimal() and held < int(length):
                raise _failed(url, "the connection broke off")
    except UserError:
        raise
    except urllib.error.HTTPError as error:
        raise _failed(url, f"the server says {error.code} {error.reason}".rstrip()) from error
    except urllib.error.URLError as error:
        raise _failed(url, str(error.reason)) from error
    except Exception as error:  # http.client and ssl raise whatever a server's nonsense provokes
        raise _failed(url, str(error) or type(error).__name__) from error
    ending = os.path.splitext(urlsplit(url).path)[1].lower()
    return b"".join(parts), kind.startswith("video/") or (not kind.startswith("image/") and ending in VIDEOS)


def _failed(url: str, why: str) -> UserError:
    return UserError(f"cannot be fetched ({why.splitlines()[0]})", hint=f"check the address {url}")


class _Redirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        before, after = (urlsplit(url).scheme.lower() for url in (req.full_url, newurl))
        if after not in _SCHEMES or (before, after) == ("https", "http"):
            raise _failed(req.full_url, f"it leads to {after}, from {before}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener() -> urllib.request.OpenerDirector:
    """One without the handlers of files, FTP and data URLs that urllib's own has."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        _Redirects(),
    ):
        opener.add_handler(handler)
    return opener
