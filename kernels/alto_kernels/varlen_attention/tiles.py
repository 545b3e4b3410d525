"""How large the blocks of one head are, and with what they run. By the size of a head alone, so a
sequence is computed alike in every batch."""

from dataclasses import dataclass

__all__ = ["KEY_GRADIENTS", "MIXED", "QUERY_GRADIENTS", "Tiles"]


@dataclass(frozen=True, slots=True)
class Tiles:
    queries: int
    keys: int
    warps: int
    stages: int

    def query_blocks(self, longest: int) -> int:
        return -(-longest // self.queries)

    def key_blocks(self, longest: int) -> int:
        return -(-longest // self.keys)


# Fastest of six to nine on an H100, on sequences of 30 to 1,024 tokens (64, 128).
# A program has a block of queries and walks over keys.
MIXED = {
    16: Tiles(queries=64, keys=32, warps=4, stages=3),
    32: Tiles(queries=64, keys=32, warps=4, stages=3),
    64: Tiles(queries=64, keys=32, warps=4, stages=3),
    128: Tiles(queries=64, keys=64, warps=4, stages=3),
}
QUERY_GRADIENTS = {
    16: Tiles(queries=64, keys=32, warps=4, stages=3),
    32: Tiles(queries=64, keys=32, warps=4, stages=3),
    64: Tiles(queries=64, keys=32, warps=4, stages=3),
    128: Tiles(queries=128, keys=64, warps=8, stages=3),
}
# A program has a block of keys and walks over queries.
KEY_GRADIENTS = {
    16: Tiles(queries=32, keys=64, warps=4, stages=3),
    32: Tiles(queries=32, keys=64, warps=4, stages=3),
    64: Tiles(queries=32, keys=64, warps=4, stages=3),
    128: Tiles(queries=32, keys=64, warps=4, stages=3),
}
