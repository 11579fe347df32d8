"""What happens to files on disks that nobody watches."""

from pathlib import Path


def flip_a_byte(path: Path, place: int = -10) -> None:
    """Flips all bits of a byte, by default one of the last: in a file of weights a number, not the header."""
    content = bytearray(path.read_bytes())
    content[place] ^= 0xFF
    path.write_bytes(bytes(content))
