"""Who executes which request of a client."""

from protocol.frames import Auth, Error, Hello, History, Join, Publish, Stop
from reference_server.context import Context
from reference_server.handshake import Handshake
from reference_server.joiner import Historian, Joiner
from reference_server.peer import Peer, Pending
from reference_server.publisher import Publisher
from reference_server.room import Member
from reference_server.stopper import Stopper


class Requests:
    """The `peer.Handlers` of a server. LEAVE needs nothing but the peer itself."""

    def __init__(self, context: Context) -> None:
        self.handshake = Handshake(context)
        self.joiner = Joiner(context)
        self.historian = Historian(context)
        self.publisher = Publisher(context)
        self.stopper = Stopper(context)

    def hello(self, peer: Peer, hello: Hello) -> None:
        self.handshake.hello(peer, hello)

    def auth(self, peer: Peer, auth: Auth) -> None:
        self.handshake.auth(peer, auth)

    def publish(self, peer: Peer, member: Member | None, publish: Publish) -> Pending | Error:
        return self.publisher.publish(peer, member, publish)

    def join(self, peer: Peer, join: Join) -> None:
        self.joiner.join(peer, join)

    def history(self, peer: Peer, history: History) -> None:
        self.historian.history(peer, history)

    def stop(self, peer: Peer, stop: Stop) -> None:
        self.stopper.stop(peer, stop)

    def gone(self, peer: Peer) -> None:
        """The peer's link is closed."""
        self.handshake.gone(peer)
