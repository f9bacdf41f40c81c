"""AWS sessions."""

import os

from aioboto3 import Session
from aiobotocore.config import AioConfig
from botocore.exceptions import BotoCoreError

# A long poll lasts 20 s. `standard` retries throttling and lost connections twice, with growing pauses.
CONFIG = AioConfig(connect_timeout=5, read_timeout=30, retries={"mode": "standard"}, max_pool_connections=50)


class AwsConfigError(Exception):
    """AWS's region or profile is missing. The message states what to set."""


def open_session() -> Session:
    """Returns a session of the environment's region. Raises AwsConfigError."""
    # boto3 reads AWS_DEFAULT_REGION alone; containers of AWS have AWS_REGION.
    session = Session(region_name=os.environ.get("AWS_REGION") or None)
    try:
        if session.region_name is None:
            raise AwsConfigError("set AWS_REGION, such as eu-central-1")
    except BotoCoreError as error:  # AWS_PROFILE names a profile that does not exist.
        raise AwsConfigError(str(error)) from None
    return session
