"""uvicorn's WebSocket protocol, so that a refused handshake is one answer and no error in the log."""

from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """One connection."""

    async def send(self, message: Any) -> None:
        """Sends a message of the application."""
        await super().send(message)
        is_denial = message["type"] == "websocket.http.response.body" and not message.get("more_body", False)
        if is_denial:  # uvicorn would report a handshake that nobody completed, and try to answer it once more.
            self.handshake_complete = True
