"""JSON by pydantic, with what it has learned about our types kept for the life of the process."""

from temporalio.contrib.pydantic import PydanticJSONPlainPayloadConverter
from temporalio.converter import CompositePayloadConverter, DefaultPayloadConverter, JSONPlainPayloadConverter

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
