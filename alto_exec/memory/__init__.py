"""How much a device can hold, and the passes that this is measured by."""
