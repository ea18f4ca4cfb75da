"""Why a request is not done: a status, a word for the metrics, a sentence for the person."""

from __future__ import annotations


class Refusal(Exception):  # noqa: N818 - no fault of this program
    """A request that is answered with an error.

    Attributes:
        status: of HTTP.
        reason: one word, the same for the same reason.
        told: the sentence.
        retry_after: seconds after which it is worth another try; None where it is not.
    """

    def __init__(self, status: int, reason: str, told: str, retry_after: int | None = None) -> None:
        super().__init__(told)
        self.status, self.reason, self.told, self.retry_after = status, reason, told, retry_after
