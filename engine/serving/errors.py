"""Errors of a server with their HTTP status; each has one line for the client."""

from __future__ import annotations


class RequestError(Exception):
    """A request that is not answered. status: of HTTP. retry_after: seconds, for 429."""

    def __init__(self, status: int, message: str, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.retry_after = status, message, retry_after


def bad_request(message: str) -> RequestError:
    """Return the error of an input that does not fit."""
    return RequestError(400, message)
