"""What an upload is refused with, beside what every route has."""

from __future__ import annotations

from server.problems import Conflict, ServiceError


class Forbidden(ServiceError):
    status, code = 403, "forbidden"


class TooLarge(ServiceError):
    status, code = 413, "too_large"


class NoRoom(ServiceError):
    """507: the quota is used up, or the disk is full."""

    status, code = 507, "quota_exceeded"


class TooSlow(ServiceError):
    status, code = 408, "too_slow"


class WrongOffset(Conflict):
    """Bytes were sent for another place than the next one, which the header `Upload-Offset` names."""

    def __init__(self, offset: int) -> None:
        super().__init__(f"{offset} bytes are here: send those from {offset} on", code="wrong_offset")
        self.headers = {"upload-offset": str(offset)}


class Busy(Conflict):
    """Somebody else writes to the upload."""

    def __init__(self, detail: str, code: str) -> None:
        super().__init__(detail, code=code)
        self.headers = {"retry-after": "1"}
