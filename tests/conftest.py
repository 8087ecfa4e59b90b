"""What all tests share: how hypothesis runs."""

import os

from hypothesis import settings

# No test depends on how fast the machine is. On CI hypothesis chooses its own profile, the same each time.
settings.register_profile("roomwire", deadline=None, print_blob=True)
if not os.environ.get("CI"):
    settings.load_profile("roomwire")
