"""In how many bits an executor keeps the frozen layers and the moments of AdamW."""

from dataclasses import dataclass

__all__ = ["FROZEN_WEIGHTS", "OPTIMIZER_STATES", "PLAIN", "Storage"]

# Bytes of a weight of a layer: codes, and a float32 scale for each block of 256 or 64.
FROZEN_WEIGHTS = {"plain": None, "int8": 1 + 4 / 256, "nf4": 0.5 + 4 / 64}
# Bytes of both moments of an adapter's weight: in 8 bits with a scale for each block of 256.
OPTIMIZER_STATES = {"float32": 8.0, "int8": 2 * (1 + 4 / 256)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Storage:
    """By the names that a study has for them."""

    frozen_weights: str = "plain"
    optimizer_states: str = "float32"

    def __post_init__(self) -> None:
        for name, known in (
            ("frozen_weights", FROZEN_WEIGHTS),
            ("optimizer_states", OPTIMIZER_STATES),
        ):
            if getattr(self, name) not in known:
                raise ValueError(
                    f"{name} must be one of {', '.join(known)}, got {getattr(self, name)!r}"
                )

    @property
    def packed_bytes(self) -> float | None:
        """Of a frozen layer's weight; None where layers are kept as they are."""
        return FROZEN_WEIGHTS[self.frozen_weights]

    @property
    def moment_bytes(self) -> float:
        """Of an adapter's weight."""
        return OPTIMIZER_STATES[self.optimizer_states]


PLAIN = Storage()
