"""`python -m benchmarks.faults`."""

import signal
import sys

from benchmarks.faults.cli import main

signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))  # ends the servers, too
sys.exit(main())
