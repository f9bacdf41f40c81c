"""The envelope of Amazon EventBridge's events.

https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-events-structure.html
"""

from typing import Annotated, Any

from pydantic import ConfigDict, Field

from sevenfold.contracts.payload import JsonObject, Payload

_EXAMPLE: dict[str, Any] = {
    "version": "0",
    "id": "17793124-05d4-b198-2fde-7ededc63b103",
    "detail-type": "customer.created",
    "source": "com.example.shop",
    "account": "123456789012",
    "time": "2026-11-22T10:00:00Z",
    "region": "eu-central-1",
    "resources": [],
    "detail": {"id": "12345", "email": "ada@analytical.example"},
}

_Text = Annotated[str, Field(min_length=1, max_length=256)]


class EventBridgeEvent(Payload):
    """The envelope; AWS may add members to it."""

    model_config = ConfigDict(alias_generator=None, extra="ignore", json_schema_extra={"examples": [_EXAMPLE]})

    id: _Text
    detail_type: _Text = Field(alias="detail-type")
    source: _Text
    account: str = ""
    time: str | None = None
    region: str = ""
    resources: list[str] = []
    detail: JsonObject = {}

    def to_cloud_event(self) -> dict[str, Any]:
        """Returns the CloudEvent in the JSON format, unchecked: `detail-type` is its type, `detail` its data, account
        and region are the extension attributes `awsaccount` and `awsregion`.
        """
        attributes: dict[str, Any] = {
            "specversion": "1.0",
            "id": self.id,
            "source": self.source,
            "type": self.detail_type,
            "time": self.time,
            "subject": self.resources[0] if self.resources else None,
            "datacontenttype": "application/json",
            "awsaccount": self.account or None,
            "awsregion": self.region or None,
            "data": self.detail,
        }
        return {name: value for name, value in attributes.items() if value is not None}
