"""The toy experiment: pockets in the data, points that stay in the square, a student that comes to agree."""

import torch

from zskt_dist.algorithms.toy import SIDE, ToySettings, ToyTransfer, decision_map, toy_data, train_teacher


def _data() -> tuple[torch.Tensor, torch.Tensor]:
    return toy_data(torch.Generator().manual_seed(0))


def test_every_class_has_a_pocket_of_another_inside_it() -> None:
    x, label = _data()
    for own, (centre, hole) in enumerate(((-1.6, 0.9), (0.0, -0.9), (1.6, 0.9))):
        near = (x - torch.tensor([centre, hole])).norm(dim=1)
        assert (label[near < 0.3] == (own + 1) % 3).all()
        ring = label[(near > 0.5) & (near < 0.8) & ((x[:, 0] - centre).abs() < 0.7)]
        assert (ring == own).double().mean() > 0.9
    assert x.abs().max() <= SIDE


def test_the_student_comes_to_agree_and_the_teacher_stays() -> None:
    torch.manual_seed(0)
    x, label = _data()
    teacher = train_teacher(x, label, steps=300)
    assert (teacher(x).argmax(dim=1) == label).double().mean() > 0.95
    before = [parameter.clone() for parameter in teacher.parameters()]
    settings = ToySettings(rounds=40, points=50, points_learning_rate=0.1)
    generator = torch.Generator().manual_seed(1)
    transfer = ToyTransfer(teacher, settings, generator)
    snapshots = [transfer.snapshot()]
    for _ in range(settings.rounds):
        transfer.step()
    snapshots.append(transfer.snapshot())
    assert [snapshot.round for snapshot in snapshots] == [0, 40]
    assert all(snapshot.points.abs().max() <= SIDE for snapshot in snapshots)
    assert all(torch.equal(a, b) for a, b in zip(before, teacher.parameters(), strict=True))
    last, cells = snapshots[-1], decision_map(teacher)
    assert last.agreement == (last.student_map == cells).double().mean().item()
    assert last.agreement > snapshots[0].agreement + 0.2


def test_rows_of_a_decision_map_go_from_bottom_to_top() -> None:
    class Above(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.stack([torch.zeros(len(x)), x[:, 1]], dim=1)

    cells = decision_map(Above(), cells=10)
    assert cells[:5].sum() == 0
    assert cells[5:].sum() == 50
