"""Shows URLs, in messages and reports, without the secrets that they may hold."""

from __future__ import annotations

from urllib.parse import urlsplit


def without_password(url: str) -> str:
    """The URL without its user, password and query, to be shown.

    >>> without_password("redis://me:secret@host:6379/1")
    'redis://host:6379/1'
    """
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="").geturl()
