"""JSON by pydantic, with what it has learned about our types kept for the life of the process."""

from temporalio.contrib.pydantic import PydanticJSONPlainPayloadConverter
from temporalio.converter import CompositePayloadConverter, DefaultPayloadConverter, JSONPlainPayloadConverter

_JSON = PydanticJSONPlainPayloadConverter()


class SharedPydanticConverter(CompositePayloadConverter):
    """Temporal's own pydantic converter, but all instances share one JSON converter and its cache of type adapters.

    The SDK makes a new instance for every run and, with external storage, for every signal, heartbeat and workflow
    task: a tenth of a busy worker's time went into validators for the same few types.
    """

    def __init__(self) -> None:
        converters = DefaultPayloadConverter.default_encoding_payload_converters
        super().__init__(*(_JSON if isinstance(one, JSONPlainPayloadConverter) else one for one in converters))
