"""What S3 answers when something is wrong: which of it may pass when tried again, and the rest as one line for the user."""

import email.utils
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    FlexibleChecksumError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    PartialCredentialsError,
)
from botocore.parsers import ResponseParserError
from urllib3.exceptions import HTTPError

from rlpretrain.errors import Damaged, UserError

MISSING = ("NoSuchKey", "404", "NotFound")
_REFUSED = ("InvalidAccessKeyId", "SignatureDoesNotMatch", "AccessDenied", "ExpiredToken", "403", "Forbidden")
_DAMAGED = ("BadDigest", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch", "InvalidDigest")
_CUT = ("IncompleteBody", "RequestTimeout", "MalformedXML", "400")  # 400: the answer that names the error was cut
_BUSY = ("SlowDown", "ServiceUnavailable", "InternalError", "Throttling", "OperationAborted")
LOST_UPLOAD = ("NoSuchUpload", "InvalidPart", "InvalidPartOrder", "EntityTooSmall")  # mended by sending the file anew
CHANGED = ("PreconditionFailed", "412", "ConditionalRequestConflict")


class DamagedOnTheWay(Exception):
    """What arrived is shorter than it is in storage, or differs from its checksum."""


def code_of(error: BaseException) -> str:
    """S3's error code; "" for an error that S3 did not send."""
    return error.response.get("Error", {}).get("Code", "") if isinstance(error, ClientError) else ""


def may_pass(error: Exception) -> bool:
    """Whether the same request may go through when it is sent again.

    boto3 has then tried already what it can judge; a body that was cut or damaged it does not try again.
    """
    if isinstance(error, ClientError):
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        return code_of(error) in (*_DAMAGED, *_CUT, *_BUSY) or status >= 500
    if isinstance(error, EndpointConnectionError | ConnectTimeoutError):
        return False  # nobody listens there, as boto3's own attempts have shown
    damaged = (DamagedOnTheWay, FlexibleChecksumError, IncompleteReadError, ResponseParserError)
    return isinstance(error, (*damaged, HTTPClientError, HTTPError, ConnectionError, TimeoutError))


@contextmanager
def told(place: str, bucket: str, endpoint: str) -> Iterator[None]:
    """Turn what S3 answers, or that it does not, into one line."""
    try:
        yield
    except (NoCredentialsError, PartialCredentialsError):
        mend = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or a role"
        raise UserError(f"{place}: no S3 credentials; {mend}") from None
    except (EndpointConnectionError, ConnectTimeoutError):
        mend = "check AWS_ENDPOINT_URL_S3 and that the server runs"
        raise UserError(f"{place}: the S3 endpoint {endpoint} cannot be reached; {mend}") from None
    except ClientError as error:
        _refuse(error, place, bucket)
    except FlexibleChecksumError:
        raise Damaged(f"{place}: corrupted in storage, its bytes have another checksum; make it again") from None
    except DamagedOnTheWay as error:
        raise UserError(f"{place}: {error}; try again") from None
    except (BotoCoreError, ResponseParserError, HTTPError, ConnectionError, TimeoutError) as error:
        raise UserError(f"{place}: the transfer failed ({one_line(error)}); try again") from None


def damaged(place: str) -> UserError:
    """Of a file that is not what its manifest says, or that every attempt to send damaged."""
    cause = "the file changed after its manifest was written, or was damaged on its way"
    return UserError(f"{place}: the bytes have a wrong checksum and were refused; {cause}")


def one_line(error: Exception) -> str:
    """An error's text without line breaks."""
    return " ".join(str(error).split())


def _refuse(error: ClientError, place: str, bucket: str) -> NoReturn:
    code = code_of(error)
    if code == "NoSuchBucket":
        raise UserError(f"{place}: there is no bucket '{bucket}'; create it or mend the address") from None
    if code in MISSING:
        raise Damaged(f"{place} does not exist; check the address") from None
    if code == "RequestTimeTooSkewed":
        raise UserError(f"{place}: {_skew(error)}; set this machine's clock, by NTP for one") from None
    if code in _REFUSED:
        mend = "check the key, its secret and its rights"
        raise UserError(f"{place}: the S3 server refused the credentials ({code}); {mend}") from None
    if code in _DAMAGED:
        raise damaged(place) from None
    if code in CHANGED:
        raise UserError(f"{place}: it changed while it was read or written; try again") from None
    raise UserError(f"{place}: S3 answered {code or 'an error'}: {one_line(error)}") from None


def _skew(error: ClientError) -> str:
    """How far the clocks are apart, where the answer says what time it is there."""
    date = error.response["ResponseMetadata"]["HTTPHeaders"].get("date")
    apart = ""
    if date is not None:
        minutes = (time.time() - email.utils.parsedate_to_datetime(date).timestamp()) / 60
        apart = f" ({abs(minutes):.0f} minutes {'ahead' if minutes > 0 else 'behind'})"
    return f"the clock of this machine and the S3 server's are too far apart{apart}"
