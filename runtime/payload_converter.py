"""JSON by pydantic, with what it has learned about our types kept for the life of the process."""

from collections.abc import Sequence
from typing import Any

from temporalio.api.common.v1 import Payload
from temporalio.contrib.pydantic import PydanticJSONPlainPayloadConverter
from temporalio.converter import CompositePayloadConverter, DefaultPayloadConverter, JSONPlainPayloadConverter
from temporalio.exceptions import ApplicationError

from sevenfold.adapters.payloads.stores import LOST
from sevenfold.contracts.verdicts import ErrorCode

_JSON = PydanticJSONPlainPayloadConverter()
_CONVERTERS = CompositePayloadConverter(
    *(
        _JSON if isinstance(one, JSONPlainPayloadConverter) else one
        for one in DefaultPayloadConverter.default_encoding_payload_converters
    )
).converters


class SharedPydanticConverter(CompositePayloadConverter):
    """Temporal's own pydantic converter, but all instances share their converters, and so the cache of type adapters.

    The SDK makes a new instance for every run and, with external storage, for every signal, heartbeat and workflow
    task: a tenth of a busy worker's time went into validators for the same few types.
    """

    def __init__(self) -> None:
        self.converters = _CONVERTERS

    def from_payloads(self, payloads: Sequence[Payload], type_hints: list[type] | None = None) -> list[Any]:
        """As Temporal's own. Raises the failure that ends a run or an activity whose stored payload is gone."""
        for payload in payloads:
            if LOST in payload.metadata:
                name = payload.metadata[LOST].decode()
                detail = f"The stored payload {name} of this run is gone or was changed. Start it again."
                raise ApplicationError(detail, type=ErrorCode.PAYLOAD_LOST, non_retryable=True)
        return super().from_payloads(payloads, type_hints)
