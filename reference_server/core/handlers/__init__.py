"""Who executes which request of a client."""

from protocol.frames import Auth, Hello, History, Join, Stop
from reference_server.core.handlers.hello import Handshake
from reference_server.core.handlers.history import Historian
from reference_server.core.handlers.join import Joiner
from reference_server.core.handlers.publish import Publisher
from reference_server.core.handlers.stop import Stopper
from reference_server.core.peer import Peer
from reference_server.core.state import Context


class Requests:
    """The `peer.Handlers` of a server. LEAVE needs nothing but the peer itself."""

    def __init__(self, context: Context) -> None:
        self.handshake = Handshake(context)
        self.joiner = Joiner(context)
        self.historian = Historian(context)
        self.publish = Publisher(context).publish
        self.stopper = Stopper(context)

    def hello(self, peer: Peer, hello: Hello) -> None:
        self.handshake.hello(peer, hello)

    def auth(self, peer: Peer, auth: Auth) -> None:
        self.handshake.auth(peer, auth)

    def join(self, peer: Peer, join: Join) -> None:
        self.joiner.join(peer, join)

    def history(self, peer: Peer, history: History) -> None:
        self.historian.history(peer, history)

    def stop(self, peer: Peer, stop: Stop) -> None:
        self.stopper.stop(peer, stop)

    def gone(self, peer: Peer) -> None:
        """The peer's link is closed."""
        self.handshake.gone(peer)
