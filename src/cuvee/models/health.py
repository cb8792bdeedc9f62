"""Asking a server on this machine whether it is ready. Not here: asking a model."""

import http.client
import urllib.request

# The user's proxy is not for 127.0.0.1.
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
_SECONDS = 5.0


def is_healthy(url: str) -> bool:
    """Return whether a GET of a loopback URL answers 200."""
    try:
        with _DIRECT.open(url, timeout=_SECONDS) as response:
            return bool(response.status == http.HTTPStatus.OK)
    except (OSError, http.client.HTTPException):  # refused, reset, not 200, not HTTP
        return False
