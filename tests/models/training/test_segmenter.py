"""The segmenter's network in training; needs the training environment."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the training environment is not installed")
pytest.importorskip("onnx", reason="the training environment is not installed")

from models.segmenter import OnnxSegmenter  # noqa: E402
from models.training.segmenter import Network, export, go_on, train  # noqa: E402
from models.training.segmenter_samples import Sample, Sampler  # noqa: E402
from pipeline.segmentation.network_maps import MAP_COUNT  # noqa: E402

CROPS = torch.rand(4, 3, 96, 96, generator=torch.Generator().manual_seed(5))


@pytest.fixture(scope="module")
def trained() -> Network:
    """With norms that have statistics of their own."""
    torch.manual_seed(3)
    network = Network()
    network(CROPS)
    return network.eval()


@torch.no_grad()
def test_the_exported_file_answers_as_the_network(trained: Network, tmp_path: Path) -> None:
    export(trained, tmp_path)

    maps = OnnxSegmenter.load(tmp_path).answer(CROPS[0].numpy())

    assert maps.shape == (MAP_COUNT, 96, 96)
    np.testing.assert_allclose(maps, trained(CROPS[:1])[0].numpy(), atol=1e-4)


@torch.no_grad()
def test_a_network_goes_on_from_the_file_as_it_was(trained: Network, tmp_path: Path) -> None:
    export(trained, tmp_path)
    again = Network()

    go_on(again, tmp_path / "segmenter.onnx", [CROPS])

    torch.testing.assert_close(again.eval()(CROPS), trained(CROPS), rtol=1e-3, atol=1e-3)


class Glass(Sampler):
    """Crops in which there is nothing."""

    def __init__(self) -> None:
        pass

    def draw(self) -> Sample:
        maps = np.zeros((MAP_COUNT, 32, 32), np.float32)
        return np.zeros((3, 32, 32), np.float32), maps, np.ones_like(maps)


def test_a_training_shows_the_network_after_each_step() -> None:
    seen = []

    def keep(step: int, average: Network) -> None:
        seen.append((step, float(average.head.bias[0].detach())))

    train(Network(), Glass(), lambda step: step / 3, rate=1e-2, on_step=keep)

    assert [step for step, _ in seen] == [1, 2, 3]
    assert len({bias for _, bias in seen}) == 3
