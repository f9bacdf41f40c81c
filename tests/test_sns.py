"""Events of Amazon SNS over HTTP: verified by their signatures."""

import json
import os
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest

from sevenfold.adapters.events.sns_signatures import SnsVerifier, UntrustedMessageError
from sevenfold.contracts.events.sns import SnsMessage, SnsTopicConfig
from tests.support.events import EVENTS
from tests.support.sns import CERTIFICATE, TOPIC, Sns, running_sns
from tests.support.stack import Stack, running_stack

SNS = f"{EVENTS}/sns"
OTHER = TOPIC.replace("orders", "clear")

CONFIG = f"""
[[sns]]
topic = "{TOPIC}"
tenant = "shop"
map = {{ type = "order.created", source = "/shop", id = "$body/id", subject = "$headers/Subject" }}
[[sns]]
topic = "{OTHER}"
tenant = "shop"
[tenants.shop]
"""


@pytest.fixture(scope="module")
def sns() -> Iterator[Sns]:
    with running_sns() as running:
        before = os.environ.get("AWS_ENDPOINT_URL_SNS")
        os.environ["AWS_ENDPOINT_URL_SNS"] = running.url
        yield running
        os.environ.pop("AWS_ENDPOINT_URL_SNS")
        if before is not None:
            os.environ["AWS_ENDPOINT_URL_SNS"] = before


@pytest.fixture(scope="module")
async def topics(sns: Sns, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    async with running_stack(tmp_path_factory.mktemp("sns"), more_config=CONFIG) as running:
        yield running


async def post(to: Stack, message: Any, **headers: str) -> httpx.Response:
    body = message if isinstance(message, str) else json.dumps(message)
    known = {"content-type": "text/plain; charset=UTF-8", "x-amz-sns-message-type": "Notification"}
    return await to.http.post(SNS, content=body, headers=known | headers)


async def test_a_subscription_is_confirmed(topics: Stack, sns: Sns) -> None:
    response = await post(topics, sns.confirmation())
    assert response.status_code == 202, response.text
    assert "/?Action=ConfirmSubscription&Token=t0ken" in sns.requested


@pytest.mark.parametrize("version", ["1", "2"])
async def test_a_signed_notification_is_an_event_once(topics: Stack, sns: Sns, version: str) -> None:
    message = sns.notification(json.dumps({"id": f"o-{version}"}), Subject="sü b", SignatureVersion=version)
    first, again = await post(topics, message), await post(topics, message)
    assert (first.status_code, first.json()["accepted"]) == (202, 1), first.text
    assert again.json()["duplicate"] == 1
    event_id = first.json()["items"][0]["id"]
    handle = topics.temporal.get_workflow_handle(f"shop:{event_id}")
    stored = (await (await handle.describe()).memo())["event"]["event"]
    assert (stored["id"], stored["type"], stored["subject"]) == (f"o-{version}", "order.created", "sü b")
    assert stored["data"] == {"id": f"o-{version}"}


async def test_a_cloud_event_and_an_event_of_eventbridge_need_no_map(topics: Stack, sns: Sns) -> None:
    cloud_event = {"specversion": "1.0", "id": "c-1", "source": "/s", "type": "t"}
    bridged = {"id": "b-1", "detail-type": "order.paid", "source": "com.shop", "detail": {"n": 1}}
    for content in (cloud_event, bridged):
        response = await post(topics, sns.notification(json.dumps(content), TopicArn=OTHER))
        assert response.json()["accepted"] == 1, response.text
        assert response.json()["items"][0]["eventId"] == content["id"]


async def test_what_is_no_event_is_kept_as_a_dead_letter(topics: Stack, sns: Sns) -> None:
    response = await post(topics, sns.notification("no JSON"))
    assert response.status_code == 202
    assert response.json()["rejected"] == 1
    item = response.json()["items"][0]
    assert "is not json" in item["detail"]
    handle = topics.temporal.get_workflow_handle(f"shop:{item['id']}")
    assert (await handle.describe()).workflow_type == "RejectedEvent"


async def test_what_sns_did_not_sign_is_refused(topics: Stack, sns: Sns) -> None:
    good = sns.notification('{"id": "forged"}')
    unknown_certificate = sns.url + CERTIFICATE.replace("0123", "ffff")
    cases: list[tuple[Any, dict[str, str], int, str]] = [
        (sns.notification("{}", TopicArn=f"{TOPIC}-2"), {}, 403, "not configured"),
        (good | {"Message": '{"id": "changed"}'}, {}, 403, "signature is wrong"),
        (good | {"Signature": "AAAA"}, {}, 403, "signature is wrong"),
        (good | {"Signature": "no base64"}, {}, 403, "signature is wrong"),
        (good | {"Subject": "added"}, {}, 403, "signature is wrong"),
        (good | {"SignatureVersion": "2"}, {}, 403, "signature is wrong"),
        (good | {"Signature": "é" * 40}, {}, 403, "signature is wrong"),
        (good | {"SigningCertURL": good["SigningCertURL"] + "\n"}, {}, 403, "SigningCertURL"),
        (good | {"SigningCertURL": sns.url + "/\x00"}, {}, 403, "SigningCertURL"),
        (good | {"SigningCertURL": sns.url + "/é"}, {}, 403, "SigningCertURL"),
        (good | {"SignatureVersion": "3"}, {}, 422, "SignatureVersion"),
        (sns.notification("{}", Timestamp="2020-01-01T00:00:00.000Z"), {}, 403, "older than a day"),
        (sns.notification("{}", Timestamp="2999-01-01T00:00:00.000Z"), {}, 403, "from the future"),
        (sns.notification("{}", Timestamp="yesterday"), {}, 403, "Timestamp"),
        (good | {"SigningCertURL": "https://sns.evil.example/x.pem"}, {}, 403, "SigningCertURL"),
        (good | {"SigningCertURL": unknown_certificate}, {}, 503, "SNS answered 404"),
        ({name: value for name, value in good.items() if name != "Signature"}, {}, 422, "Signature"),
        (good, {"x-amz-sns-rawdelivery": "true"}, 422, "raw message delivery"),
        ("{", {}, 400, "JSON"),
        ("[]", {}, 422, ""),
        (good | {"Message": "x" * 1_000_001}, {}, 413, "1,000,000"),
    ]
    for message, headers, status, problem in cases:
        response = await post(topics, message, **headers)
        assert response.status_code == status, f"{response.text} {problem}"
        assert response.headers["content-type"] == "application/problem+json"
        assert problem in response.text
    assert (await post(topics, good)).json()["accepted"] == 1, "a forgery must not take the place of the message"


@pytest.mark.parametrize(
    "url",
    [
        "http://sns.eu-central-1.amazonaws.com/SimpleNotificationService-1.pem",
        "https://sns.us-east-1.amazonaws.com/SimpleNotificationService-1.pem",
        "https://sns.eu-central-1.amazonaws.com.evil.example/SimpleNotificationService-1.pem",
        "https://user@sns.eu-central-1.amazonaws.com/SimpleNotificationService-1.pem",
        "https://sns.eu-central-1.amazonaws.com:8443/SimpleNotificationService-1.pem",
        "https://sns.eu-central-1.amazonaws.com/other/../SimpleNotificationService-1.pem",
        "https://s3.eu-central-1.amazonaws.com/SimpleNotificationService-1.pem",
        "https://[sns.eu-central-1.amazonaws.com/SimpleNotificationService-1.pem",
        "https://127.0.0.1/SimpleNotificationService-1.pem",
    ],
)
async def test_a_certificate_of_another_place_is_not_fetched(sns: Sns, url: str) -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise AssertionError(f"{request.url} was fetched")

    async with httpx.AsyncClient(transport=httpx.MockTransport(refuse)) as http:
        verifier = SnsVerifier([SnsTopicConfig(topic=TOPIC)], http)
        message = SnsMessage.model_validate(sns.notification("{}") | {"SigningCertURL": url})
        with pytest.raises(UntrustedMessageError, match="SigningCertURL"):
            await verifier.verify(message)


async def test_aws_own_certificate_is_fetched_once(sns: Sns) -> None:
    fetched = []

    def answer(request: httpx.Request) -> httpx.Response:
        fetched.append(str(request.url))
        return httpx.Response(200, stream=httpx.ByteStream(sns.certificate))

    url = f"https://sns.eu-central-1.amazonaws.com{CERTIFICATE}"
    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as http:
        verifier = SnsVerifier([SnsTopicConfig(topic=TOPIC)], http)
        for _ in range(3):
            message = SnsMessage.model_validate(sns.notification("{}", SigningCertURL=url))
            assert (await verifier.verify(message)).topic == TOPIC
    assert fetched == [url]


async def test_a_gateway_without_topics_says_so(sns: Sns, stack: Stack) -> None:
    response = await post(stack, sns.notification("{}"))
    assert response.status_code == 404
