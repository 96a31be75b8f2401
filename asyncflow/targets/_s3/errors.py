"""What goes wrong with a store, as errors of Python's that say what to do."""

from __future__ import annotations

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    HTTPClientError,
    NoCredentialsError,
    PartialCredentialsError,
    ReadTimeoutError,
)

__all__ = ["FAILURES", "code_of", "expired", "status_of", "translate"]

FAILURES = (ClientError, BotoCoreError)
"""Everything botocore raises when a request does not work out."""

_EXPIRED = {"ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired"}


def code_of(error: Exception) -> str:
    """The store's own word for it, e.g. ``NoSuchKey``; a number where an answer has no body (HEAD)."""
    return str(error.response.get("Error", {}).get("Code", "")) if isinstance(error, ClientError) else ""


def status_of(error: Exception) -> int:
    """The HTTP status, 0 if there was no answer."""
    if not isinstance(error, ClientError):
        return 0
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def expired(error: ClientError) -> bool:
    """Whether credentials are to be looked for anew. The answer to a HEAD has no words: a bare 400 may be that."""
    return code_of(error) in {*_EXPIRED, "400"}


def translate(error: Exception, what: str) -> OSError:
    """An ``OSError`` of the right kind that says ``what`` did not work, and why."""
    status, code = status_of(error), code_of(error)
    if code == "NoSuchBucket":
        return FileNotFoundError(f"{what}: the bucket does not exist")
    if status == 404:
        return FileNotFoundError(f"{what}: not there")
    if status == 403:
        return PermissionError(f"{what}: the store refuses it ({code}): {_said(error)}")
    if isinstance(error, (NoCredentialsError, PartialCredentialsError)):
        return PermissionError(
            f"{what}: no credentials were found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give the target "
            "a store=S3Store(access_key=..., secret_key=...)"
        )
    if isinstance(error, (ConnectTimeoutError, ReadTimeoutError)):
        return TimeoutError(f"{what}: the store does not answer: {error}")
    if isinstance(error, HTTPClientError) or status >= 500 or code in {"SlowDown", "RequestTimeout"}:
        return ConnectionError(f"{what}: the store cannot answer now: {_said(error)}")
    return OSError(f"{what}: {_said(error)}")


def _said(error: Exception) -> str:
    if isinstance(error, ClientError):
        details = error.response.get("Error", {})
        return f"{details.get('Code', '')} {details.get('Message', '')}".strip() + f" (HTTP {status_of(error)})"
    return str(error)
