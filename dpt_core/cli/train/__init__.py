"""`dpt train`: adapters for one's own model, and the demo model."""

from __future__ import annotations

from cyclopts import App

from .adapter import adapter
from .demo import demo
from .probing import probing
from .reward import reward
from .tuning import tuning

app = App("train", help="Train an adapter, or remake the demo model.")
for command in (adapter, probing, tuning, reward, demo):
    app.command(command)
