"""All mutants in their order: by role, then by module, then as the module's `MUTANTS` lists them."""

from tests.mutants.client import accounts as client_accounts
from tests.mutants.client import connections as client_connections
from tests.mutants.client import frames as client_frames
from tests.mutants.client import publishing as client_publishing
from tests.mutants.client import rooms as client_rooms
from tests.mutants.clients import ClientMutant
from tests.mutants.codec import frames as codec_frames
from tests.mutants.codecs import CodecMutant
from tests.mutants.server import accounts as server_accounts
from tests.mutants.server import connections as server_connections
from tests.mutants.server import frames as server_frames
from tests.mutants.server import limits as server_limits
from tests.mutants.server import publishing as server_publishing
from tests.mutants.server import rooms as server_rooms
from tests.mutants.server import stores as server_stores
from tests.mutants.servers import ServerMutant

Mutant = ServerMutant | CodecMutant | ClientMutant

SERVER_MODULES = (
    server_frames, server_connections, server_accounts, server_rooms, server_stores, server_publishing, server_limits,
)  # fmt: skip
CODEC_MODULES = (codec_frames,)
CLIENT_MODULES = (client_frames, client_connections, client_accounts, client_rooms, client_publishing)

SERVERS: dict[str, ServerMutant] = {mutant.slug: mutant for module in SERVER_MODULES for mutant in module.MUTANTS}
CODECS: dict[str, CodecMutant] = {mutant.slug: mutant for module in CODEC_MODULES for mutant in module.MUTANTS}
CLIENTS: dict[str, ClientMutant] = {mutant.slug: mutant for module in CLIENT_MODULES for mutant in module.MUTANTS}
"""The mutants of each role by slug."""

MUTANTS: dict[str, Mutant] = {
    f"{mutant.ROLE}/{slug}": mutant for mutants in (SERVERS, CODECS, CLIENTS) for slug, mutant in mutants.items()
}
"""All mutants by `role/slug`."""
