"""What all tests share: no hub, no deadlines, figures without a screen."""

import os

# Nothing here may reach for a model hub: without this a wrong name costs half a minute of retries.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("MPLBACKEND", "agg")

from hypothesis import settings

# No deadline: a machine that is busy with something else is no failure.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")
