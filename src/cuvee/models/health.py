"""Asking a server of ours whether it is ready. Not here: asking a model."""

import http.client
import urllib.error
import urllib.request

# The user's proxy is not for 127.0.0.1, nor for a node of the cluster.
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
_SECONDS = 5.0


def is_healthy(url: str) -> bool:
    """Return whether a GET of a URL answers 200."""
    try:
        with _DIRECT.open(url, timeout=_SECONDS) as response:
            return bool(response.status == http.HTTPStatus.OK)
    except (OSError, http.client.HTTPException):  # refused, reset, not 200, not HTTP
        return False


def answers(url: str) -> bool:
    """Return whether a GET of a URL is answered at all, with whatever status."""
    try:
        with _DIRECT.open(url, timeout=_SECONDS):
            return True
    except urllib.error.HTTPError as error:
        error.close()
        return True
    except (OSError, http.client.HTTPException):
        return False
