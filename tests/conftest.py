"""Set the switches before any test imports torch or huggingface_hub."""

import os

# The tests are offline and use the mini profile, whatever the shell says;
# importing helpers sets the rest (OMP_WAIT_POLICY and the like).
os.environ.setdefault("DISTILL_PROFILE", "mini")
os.environ["HF_HUB_OFFLINE"] = "1"

import helpers  # noqa: E402, F401
