"""Temporal's pydantic converter with type adapters cached per process."""

from collections.abc import Sequence
from typing import Any

from temporalio.api.common.v1 import Payload
from temporalio.contrib.pydantic import PydanticJSONPlainPayloadConverter
from temporalio.converter import CompositePayloadConverter, DefaultPayloadConverter, JSONPlainPayloadConverter
from temporalio.exceptions import ApplicationError

from sevenfold.adapters.payloads.stores import LOST
from sevenfold.contracts.agents.errors import ErrorCode

_JSON = PydanticJSONPlainPayloadConverter()
_CONVERTERS = CompositePayloadConverter(
    *(
        _JSON if isinstance(one, JSONPlainPayloadConverter) else one
        for one in DefaultPayloadConverter.default_encoding_payload_converters
    )
).converters


class SharedPydanticConverter(CompositePayloadConverter):
    """Temporal's own pydantic converter, but all instances share their converters and so the cache of type adapters.

    The SDK creates an instance for every run and, with external storage, for every signal, heartbeat and workflow
    task. Building validators for the same few types took a tenth of a busy worker's time.
    """

    def __init__(self) -> None:
        self.converters = _CONVERTERS

    def from_payloads(self, payloads: Sequence[Payload], type_hints: list[type] | None = None) -> list[Any]:
        """Raises the failure `PayloadLost` for a stored payload that is missing or changed."""
        for payload in payloads:
            if LOST in payload.metadata:
                name = payload.metadata[LOST].decode()
                detail = f"The stored payload {name} of this run is missing or was changed. Start the run again."
                raise ApplicationError(detail, type=ErrorCode.PAYLOAD_LOST, non_retryable=True)
        return super().from_payloads(payloads, type_hints)
