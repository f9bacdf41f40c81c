"""What an agent call publishes its stream to."""

from typing import Protocol


class CallPublisher(Protocol):
    """Publishes the stream of a call (implemented by `sevenfold.adapters.streams.publisher`)."""

    async def publish_chunk(self, text: str) -> None: ...

    async def publish_progress(self, percent: float, note: str) -> None: ...

    async def publish_response(self, text: str) -> None: ...

    async def publish_questions(self, questions: str) -> None: ...

    def confirm_adoption(self) -> None: ...

    async def wait_for_adoption(self) -> None: ...

    async def close(self, *, is_final: bool = False) -> int: ...

    def start_publishing(self) -> None: ...

    @property
    def is_buffering(self) -> bool: ...

    @property
    def last_index(self) -> int: ...


class NullPublisher:
    """Publishes nothing, for the calls of a job's single items, which have no readers."""

    async def publish_chunk(self, text: str) -> None:
        pass

    async def publish_progress(self, percent: float, note: str) -> None:
        pass

    async def publish_response(self, text: str) -> None:
        pass

    async def publish_questions(self, questions: str) -> None:
        pass

    def confirm_adoption(self) -> None:
        pass

    async def wait_for_adoption(self) -> None:
        pass

    async def close(self, *, is_final: bool = False) -> int:
        return 0

    def start_publishing(self) -> None:
        pass

    @property
    def is_buffering(self) -> bool:
        return False

    @property
    def last_index(self) -> int:
        return 0
