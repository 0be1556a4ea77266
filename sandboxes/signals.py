"""What the app of sandboxes tells others; nobody here imports the listeners."""

from django.dispatch import Signal

# Sent once per dispose, before the machine is killed, with `sandbox`.
disposing = Signal()
