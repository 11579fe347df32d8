"""The rank of this process among the workers, and the few collectives that the runtime needs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor

from zskt_dist.errors import UserError

T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """Rank and size of the group of workers; a group of one needs no process group.

    Attributes:
        control: Group for small CPU messages that must not wait for the device (gloo); None: the default group.
    """

    device: torch.device
    rank: int = 0
    size: int = 1
    control: dist.ProcessGroup | None = None

    @classmethod
    def current(cls, device: torch.device) -> "World":
        """The world of the process group that the launcher has initialised, or of this process alone."""
        if not dist.is_initialized():
            return cls(device)
        control = None if dist.get_backend() == "gloo" else dist.new_group(backend="gloo")
        assert not isinstance(control, int)  # torch returns -100 to ranks outside the new group; here all are in it
        return cls(device, dist.get_rank(), dist.get_world_size(), control)

    @property
    def is_main(self) -> bool:
        """True if this worker writes files and reports."""
        return self.rank == 0

    def part(self, batch_size: int) -> slice:
        """This worker's slice of a global batch; where it cannot be shared evenly, sizes differ by one."""
        return slice(self.rank * batch_size // self.size, (self.rank + 1) * batch_size // self.size)

    def weight(self, batch_size: int) -> float:
        """Weight of this worker's mean over its slice in the mean over the workers; 1 for an even share."""
        part = self.part(batch_size)
        return (part.stop - part.start) * self.size / batch_size

    def barrier(self) -> None:
        if self.size > 1:
            dist.barrier(group=self.control)

    def sum(self, tensor: Tensor) -> Tensor:
        """Sum over the workers, in place, of a tensor on the device."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def sum_all(self, tensors: Sequence[Tensor]) -> None:
        """Sums over the workers, in place, of tensors of one type, in a single collective."""
        if self.size > 1:
            flat = self.sum(torch.cat([tensor.flatten() for tensor in tensors]))
            for tensor, total in zip(tensors, flat.split([each.numel() for each in tensors]), strict=True):
                tensor.copy_(total.view_as(tensor))

    def mean(self, metrics: Mapping[str, Tensor], weight: float = 1.0) -> dict[str, list[float]]:
        """Means over the workers, as numbers: one collective and one synchronisation with the device.

        Args:
            weight: Weight of this worker's metrics, 1 on average.
        """
        flat = weight * torch.cat([value.detach().reshape(-1).double() for value in metrics.values()])
        numbers = (self.sum(flat) / self.size).tolist()
        means, start = {}, 0
        for name, value in metrics.items():
            means[name] = numbers[start : start + value.numel()]
            start += value.numel()
        return means

    def gather(self, item: Any) -> list[Any]:
        """`item` of every worker, in the order of ranks, on every worker."""
        if self.size == 1:
            return [item]
        items: list[Any] = [None] * self.size
        dist.all_gather_object(items, item, group=self.control)
        return items

    def gather_parts(self, own: Mapping[int, T]) -> dict[int, T]:
        """What the workers have for each part, by its number and in this order, on every worker."""
        found = {part: value for each in self.gather(own) for part, value in each.items()}
        return {part: found[part] for part in sorted(found)}

    def broadcast(self, item: Any) -> Any:
        """Rank 0's `item`."""
        if self.size == 1:
            return item
        box = [item]
        dist.broadcast_object_list(box, src=0, group=self.control)
        return box[0]

    def from_main(self, read: Callable[[], T]) -> T:
        """Calls `read` on rank 0, which alone sees the run's files, and returns its result on every worker.

        Raises:
            UserError: raised on every worker where `read` raises it.
        """
        answer: T | None = None
        problem: UserError | None = None
        if self.is_main:
            try:
                answer = read()
            except UserError as error:
                problem = error
        if self.size > 1:
            answer, message = self.broadcast((answer, problem and str(problem)))
            problem = problem or (UserError(message) if message else None)
        if problem is not None:
            raise problem
        return cast(T, answer)
