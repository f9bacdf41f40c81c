"""What Amazon SNS sends to an HTTP endpoint.

https://docs.aws.amazon.com/sns/latest/dg/sns-message-and-json-formats.html
"""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import ConfigDict, Field
from pydantic.alias_generators import to_pascal

from sevenfold.contracts.access.principals import TenantName
from sevenfold.contracts.identity import DEFAULT_TENANT
from sevenfold.contracts.messages.maps import EventMap
from sevenfold.contracts.payload import Payload
from sevenfold.contracts.sections import ConfigSection

TOPIC_PATTERN = r"^arn:aws[a-z-]*:sns:[a-z0-9-]{1,40}:\d{12}:[A-Za-z0-9_.-]{1,256}$"

# A message may have 256 kB, its attributes included; the envelope escapes them.
MAX_SNS_BYTES = 1_000_000

_Url = Annotated[str, Field(min_length=1, max_length=2_048)]


class SnsTopicConfig(ConfigSection):
    """A topic of Amazon SNS that may send events of `tenant` over HTTP. `map` makes events of messages that are
    no CloudEvents.
    """

    topic: str = Field(pattern=TOPIC_PATTERN)
    """its ARN"""
    tenant: TenantName = DEFAULT_TENANT
    """whose events they are"""
    map: EventMap | None = None
    """makes [events](#map) of messages that are no CloudEvents"""


class SnsType(StrEnum):
    """`SubscriptionConfirmation` is answered by a GET of the subscribe URL."""

    NOTIFICATION = "Notification"
    SUBSCRIPTION = "SubscriptionConfirmation"
    UNSUBSCRIPTION = "UnsubscribeConfirmation"


# The members that are signed, in this order; a notification without a subject leaves that out.
_SIGNED = {
    SnsType.NOTIFICATION: ("message", "message_id", "subject", "timestamp", "topic_arn", "type"),
    SnsType.SUBSCRIPTION: ("message", "message_id", "subscribe_url", "timestamp", "token", "topic_arn", "type"),
    SnsType.UNSUBSCRIPTION: ("message", "message_id", "subscribe_url", "timestamp", "token", "topic_arn", "type"),
}


class SnsMessage(Payload):
    """The envelope; AWS may add members to it. `timestamp` is kept as it was signed."""

    model_config = ConfigDict(alias_generator=to_pascal, extra="ignore")

    type: SnsType
    message_id: str = Field(min_length=1, max_length=200)
    topic_arn: str = Field(min_length=1, max_length=400)
    message: str
    timestamp: str = Field(max_length=40)
    signature_version: Literal["1", "2"]
    signature: str = Field(max_length=2_048)
    signing_cert_url: _Url = Field(alias="SigningCertURL")
    subject: str | None = None
    token: str | None = None
    subscribe_url: _Url | None = Field(default=None, alias="SubscribeURL")

    def signed_text(self) -> bytes:
        """Returns what AWS has signed."""
        pairs = [(name, getattr(self, name)) for name in _SIGNED[self.type]]
        names = {"subscribe_url": "SubscribeURL"}
        lines = [f"{names.get(name, to_pascal(name))}\n{value}\n" for name, value in pairs if value is not None]
        return "".join(lines).encode()
