"""python -m reference_client is roomwire-chat."""

import sys

from reference_client.chat.cli import main

sys.exit(main())
