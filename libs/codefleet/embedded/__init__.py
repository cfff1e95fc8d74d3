"""A whole codefleet on one machine: mongod and redis-server that came with the Python dependencies, and the services.

`Stack` is what `codefleet up` runs; `EmbeddedServers` is only the two servers, for tests and the demo. Loopback
development only: mongod runs without authentication, and the bundled one is old.
"""

from codefleet.embedded.servers import EmbeddedServers
from codefleet.embedded.services import SERVICES
from codefleet.embedded.stack import Stack, StackOptions

__all__ = ["SERVICES", "EmbeddedServers", "Stack", "StackOptions"]
