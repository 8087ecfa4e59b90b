"""What the server does about each request of a client: a function for each class of frames."""

from collections.abc import Mapping

from protocol.events import ServerEvent
from protocol.frames import Auth, Hello, History, Join, Leave, Publish, Stop
from reference_server.core.handlers import hello, history, join, leave, publish, stop
from reference_server.core.peer import Handler

HANDLERS: Mapping[type[ServerEvent], Handler] = {
    Hello: hello.hello,
    Auth: hello.auth,
    Join: join.join,
    Leave: leave.leave,
    Publish: publish.publish,
    History: history.history,
    Stop: stop.stop,
}
