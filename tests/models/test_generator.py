import pytest
import torch
from torch import nn
from torch.nn import functional

from zskt_dist.models import Generator, count_parameters, input_scale
from zskt_dist.models.generator import upsampled_conv2d

SHAPES = [(1, 8, 8), (3, 32, 32), (1, 28, 28), (1, 30, 17), (4, 5, 3), (2, 1, 1)]


def _of_the_facts_page(z_dim: int, shape: tuple[int, int, int], channels: tuple[int, int]) -> nn.Sequential:
    """The layers of facts, section 1, in their order; cropped before the last batch norm."""
    first, second = channels
    height, width = (-(-size // 4) for size in shape[1:])

    class Crop(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x[..., : shape[1], : shape[2]]

    return nn.Sequential(
        nn.Linear(z_dim, first * height * width),
        nn.Unflatten(1, (first, height, width)),
        nn.BatchNorm2d(first),
        nn.Upsample(scale_factor=2),
        nn.Conv2d(first, first, 3, 1, 1),
        nn.BatchNorm2d(first),
        nn.LeakyReLU(0.2),
        nn.Upsample(scale_factor=2),
        nn.Conv2d(first, second, 3, 1, 1),
        nn.BatchNorm2d(second),
        nn.LeakyReLU(0.2),
        nn.Conv2d(second, shape[0], 3, 1, 1),
        Crop(),
        nn.BatchNorm2d(shape[0]),
    )


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("training", [True, False])
def test_forward_pass(shape: tuple[int, int, int], training: bool) -> None:
    torch.manual_seed(0)
    generator = Generator(7, shape, (6, 5)).train(training)
    for name, value in generator.state_dict().items():
        if "bn" in name and value.is_floating_point():
            value.uniform_(0.5, 1.5)
    other = _of_the_facts_page(7, shape, (6, 5)).train(training)
    assert len(other.state_dict()) == len(generator.state_dict())
    other.load_state_dict(dict(zip(other.state_dict(), generator.state_dict().values(), strict=True)))
    z = torch.randn(9, 7)
    x = generator(z)
    assert x.shape == (9, *shape)
    torch.testing.assert_close(x, other(z), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32), (1, 28, 28), (3, 30, 17)], ids=str)
def test_new_generator_makes_normalised_images(shape: tuple[int, int, int]) -> None:
    """The last batch norm is affine, and neutral at first: per channel mean 0 and variance 1, unbounded."""
    torch.manual_seed(1)
    x = Generator(100, shape, (16, 8))(torch.randn(64, 100)).detach().double()
    assert x.mean(dim=(0, 2, 3)).abs().max() < 1e-5
    # v / (v + 1e-5) for the variance v before the norm, a few hundredths
    assert (x.var(dim=(0, 2, 3), correction=0) - 1).abs().max() < 2e-3
    assert x.abs().max() > 1.5  # no tanh


def test_affine_output() -> None:
    torch.manual_seed(0)
    generator = Generator(5, (2, 8, 8), (4, 4))
    with torch.no_grad():
        generator.bn3.weight.copy_(torch.tensor([3.0, 0.5]))
        generator.bn3.bias.copy_(torch.tensor([-2.0, 7.0]))
    x = generator(torch.randn(32, 5)).detach()
    torch.testing.assert_close(x.mean(dim=(0, 2, 3)), torch.tensor([-2.0, 7.0]), atol=1e-3, rtol=0)
    torch.testing.assert_close(x.std(dim=(0, 2, 3)), torch.tensor([3.0, 0.5]), atol=0, rtol=5e-3)


@pytest.mark.parametrize(
    ("mean", "std", "scale"),
    [
        ((0.3054,), (0.376,), None),
        ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010), None),
        ((0.5,), (0.5,), None),
        ((0.0,), (1.0,), ((0.5,), (0.289,))),  # pixels as they are
        ((0.4, 0.5), (1 / 255, 1 / 255), ((25.5, 0.0), (73.695, 73.695))),  # bytes without their mean
        ((0.0,), (0.5,), ((1.0,), (0.578,))),  # from 0 to 2
        ((0.5, 0.5), (0.25, 1.0), ((0.0, 0.0), (1.156, 0.289))),  # one that is none means that none is
    ],
)
def test_images_begin_in_the_range_that_the_teacher_takes(
    mean: tuple[float, ...], std: tuple[float, ...], scale: tuple[tuple[float, ...], tuple[float, ...]] | None
) -> None:
    found = input_scale((mean, std))
    if scale is None:
        assert found is None
        return
    assert found is not None
    for numbers, expected in zip(found, scale, strict=True):
        assert numbers == pytest.approx(expected)
    generator = Generator(5, (len(mean), 8, 8), (4, 4))
    generator.begin_at(*found)
    x = generator(torch.randn(64, 5)).detach()
    torch.testing.assert_close(x.mean(dim=(0, 2, 3)), torch.tensor(scale[0]), atol=0.1, rtol=0.01)
    torch.testing.assert_close(x.std(dim=(0, 2, 3)), torch.tensor(scale[1]), atol=0, rtol=0.02)


def test_size_of_the_paper() -> None:
    """z 100, 128 and 64 channels, 3x32x32: each layer has parameters of its own."""
    expected = (
        (100 * 128 * 8 * 8 + 128 * 8 * 8)  # linear
        + 2 * 128  # bn
        + (9 * 128 * 128 + 128 + 2 * 128)  # first stage
        + (9 * 128 * 64 + 64 + 2 * 64)  # second stage
        + (9 * 64 * 3 + 3 + 2 * 3)  # image
    )
    assert count_parameters(Generator()) == expected


def test_batch_norms_share_nothing() -> None:
    """A published reproduction had one batch norm for both stages (facts, section 6)."""
    generator = Generator(5, (1, 8, 8), (4, 4))
    norms = [module for module in generator.modules() if isinstance(module, nn.BatchNorm2d)]
    assert [norm.num_features for norm in norms] == [4, 4, 4, 1]
    state = generator.state_dict()
    assert len({value.data_ptr() for value in state.values()}) == len(state) == 4 * 2 + 4 * 5
    generator(torch.randn(6, 5))
    means = [norm.running_mean for norm in norms[:3]]
    assert not torch.equal(means[0], means[1])
    assert not torch.equal(means[1], means[2])
    assert [int(norm.num_batches_tracked) for norm in norms] == [1, 1, 1, 1]


def test_gradient_reaches_every_parameter() -> None:
    torch.manual_seed(0)
    generator = Generator(5, (1, 6, 7), (4, 3))
    (generator(torch.randn(6, 5)) ** 3).sum().backward()
    # Batch norm takes away what a bias before it adds, so those gradients are rounding errors.
    for name, parameter in generator.named_parameters():
        if name.split(".")[0].startswith("bn") or name.endswith("weight"):
            assert parameter.grad is not None
            assert parameter.grad.abs().max() > 1e-3, name


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (8, 8)], ids=str)
def test_convolution_of_the_upsampled_without_upsampling(size: tuple[int, int]) -> None:
    """Values and gradients of input, weight and bias, against the definition, in double precision."""
    torch.manual_seed(0)
    shapes = ((2, 4, *size), (5, 4, 3, 3), (5,))
    tensors = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    x, weight, bias = tensors
    expected = functional.conv2d(functional.interpolate(x, scale_factor=2, mode="nearest"), weight, bias, padding=1)
    got = upsampled_conv2d(x, weight, bias)
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)
    along = torch.randn_like(expected)
    for mine, plain in zip(
        torch.autograd.grad(got, tensors, along), torch.autograd.grad(expected, tensors, along), strict=True
    ):
        torch.testing.assert_close(mine, plain, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_forms_of_the_same_images(shape: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    generator = Generator(7, shape, (6, 5)).double()
    z = torch.randn(9, 7, dtype=torch.float64)
    expected = generator(z)
    generator.low_resolution = generator.channels_last = True
    torch.testing.assert_close(generator(z), expected, rtol=1e-10, atol=1e-10)
