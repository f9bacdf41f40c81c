"""Temporal's failure converter, with messages and stack traces in a payload, which the codec encrypts."""

from temporalio.api.failure.v1 import Failure
from temporalio.converter import DefaultFailureConverter, PayloadConverter

_ENCODED_MESSAGE = "Encoded failure"  # as the SDK writes it


class EncodedFailureConverter(DefaultFailureConverter):
    """Moves message and stack trace of a failure and of all its causes into their encoded attributes.

    The SDK's own converter leaves causes that it copies from an earlier failure: those that the server made, those of
    a workflow agent's clear failure, and those of runs that started before there were keys.
    """

    def __init__(self) -> None:
        super().__init__(encode_common_attributes=True)

    def to_failure(self, exception: BaseException, payload_converter: PayloadConverter, failure: Failure) -> None:
        """Converts the exception."""
        super().to_failure(exception, payload_converter, failure)
        cause = failure
        while cause.HasField("cause"):
            cause = cause.cause
            if not cause.HasField("encoded_attributes"):
                _encode_attributes(cause, payload_converter)


def _encode_attributes(failure: Failure, payload_converter: PayloadConverter) -> None:
    attributes = {"message": failure.message, "stack_trace": failure.stack_trace}
    failure.encoded_attributes.CopyFrom(payload_converter.to_payload(attributes))
    failure.message, failure.stack_trace = _ENCODED_MESSAGE, ""
