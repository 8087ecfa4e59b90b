"""The state machine at the reference server without I/O."""

from hypothesis import HealthCheck, settings

from conformance.fuzz.machine import server_machine
from tests.mutants.servers import UNCHANGED_DURABLE
from tests.support.hub_network import HubNetwork, tight

ALWAYS = settings(
    max_examples=15, stateful_step_count=20, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)


TestVolatileServer = server_machine(HubNetwork).TestCase
TestVolatileServer.settings = ALWAYS
TestDurableServer = server_machine(lambda: HubNetwork(1, UNCHANGED_DURABLE)).TestCase
TestDurableServer.settings = ALWAYS
TestServerWithTightLimits = server_machine(tight).TestCase
TestServerWithTightLimits.settings = ALWAYS
