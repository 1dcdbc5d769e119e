"""What training does to the network itself; needs the training environment."""

from __future__ import annotations

import copy

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the training environment is not installed")
pytest.importorskip("onnx", reason="the training environment is not installed")

from models.training.export import fold_norms, places, shrinking  # noqa: E402
from models.training.network import SmearNet  # noqa: E402
from models.training.resume_from_onnx import unfold  # noqa: E402
from models.training.weight_ema import follow  # noqa: E402


def test_an_unfolded_network_answers_as_the_folded_one() -> None:
    torch.manual_seed(3)
    trained = SmearNet()
    crops = [torch.rand(8, 3, 64, 64) * 255 for _ in range(2)]
    trained.train()
    for batch in crops:
        trained(batch)  # norms with statistics of their own
    folded = fold_norms(copy.deepcopy(trained).eval())
    weights = dict(folded.state_dict())

    again = SmearNet()
    unfold(again, weights, crops)

    with torch.no_grad():
        for batch in crops:
            for wanted, answer in zip(trained.eval()(batch), again.eval()(batch), strict=True):
                torch.testing.assert_close(answer, wanted, rtol=1e-3, atol=1e-3)


def test_unfolded_norms_hold_the_statistics_of_the_crops() -> None:
    torch.manual_seed(4)
    folded = fold_norms(SmearNet().eval())
    crops = torch.rand(16, 3, 64, 64) * 255
    again = SmearNet()

    unfold(again, dict(folded.state_dict()), [crops])

    seen: list[torch.Tensor] = []
    again.layer2[0].bn1.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    with torch.no_grad():
        again.eval()(crops)
    norm = again.layer2[0].bn1
    torch.testing.assert_close(norm.running_mean, seen[0].mean(dim=(0, 2, 3)), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("view", "side"), [(160, 128), (160, 112), (224, 96)])
def test_the_graph_shrinks_crops_as_the_pack_does(view: int, side: int) -> None:
    picture = np.random.default_rng(5).random((view, view), np.float32)
    shrink = shrinking(view, side)
    assert shrink is not None

    ours = shrink @ picture @ shrink.T

    np.testing.assert_allclose(
        ours, cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA), atol=1e-5
    )


def test_nothing_is_shrunk_at_the_full_side() -> None:
    assert shrinking(160, 160) is None


@pytest.mark.parametrize(("side", "across"), [(128, 5), (160, 5), (112, 7)])
def test_the_map_is_read_where_the_trunk_looked(side, across):
    """A map that says at each place which pixel it looks at is read as the middles of the cells."""
    looked_at = 32.0 * np.arange(-(-side // 32))
    middles = (np.arange(across) + 0.5) * side / across - 0.5
    between = middles <= looked_at[-1]

    read = places(side, across) @ looked_at

    assert np.allclose(places(side, across).sum(axis=1)[between], 1)
    assert np.allclose(read[between], middles[between])


def test_beyond_the_last_place_the_map_ends():
    """Reading the last place twice would lay its heat on the rim of the cell, and beyond."""
    shares = places(128, 5).sum(axis=1)

    assert shares[-1] == pytest.approx(1 - (114.7 - 96) / 32)
    assert (shares[:-1] == 1).all()


def test_place_k_of_the_last_map_looks_at_pixel_32_k():
    """What `places` takes for granted, seen in the gradient of one place of the map."""
    network = SmearNet().eval()
    crops = torch.rand(1, 3, 160, 160, requires_grad=True)

    network.feature_maps(crops)[0, :, 2, 2].sum().backward()

    weight = crops.grad[0].abs().sum(dim=0).double()
    row = (weight.sum(dim=1) * torch.arange(160)).sum() / weight.sum()
    assert abs(float(row) - 64) < 4


def test_the_average_moves_towards_the_network_and_copies_counters():
    network, averaged = torch.nn.BatchNorm2d(3), torch.nn.BatchNorm2d(3)
    network.running_mean.fill_(1.0)
    network.num_batches_tracked.fill_(7)

    follow(averaged, network, 0.75)

    torch.testing.assert_close(averaged.running_mean, torch.full((3,), 0.25))
    torch.testing.assert_close(averaged.weight.detach(), torch.ones(3))
    assert averaged.num_batches_tracked == 7
