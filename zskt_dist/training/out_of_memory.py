"""Out of memory or disk space: errors that say what would help."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from zskt_dist.errors import UserError, is_full, no_space


@contextmanager
def shortage_as_user_error() -> Iterator[None]:
    """Turns errors of a device without memory, or of a full disk, into a UserError.

    Raises:
        UserError: instead of torch's or the system's own error.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        reason = str(error).partition(". ")[0]
        advice = "engine.micro_batch=32, engine.activation_checkpointing=true or a smaller batch_size need less"
        raise UserError(f"not enough memory on the device ({reason}); {advice}, and --dry-run estimates it") from error
    except OSError as error:
        if not is_full(error):
            raise
        raise UserError(no_space(error)) from error
