"""SVMs, hard negatives and ridge regressors: each at its optimum, and together in a network."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torchvision.ops import box_iou

from models.data.batches import TrainingBatch
from models.detection.linear_svm import BIAS_INPUT, HardNegatives, SVMSettings, fit
from models.detection.losses import Truth
from models.detection.stages import (
    FEATURE_NORM,
    NEGATIVE_BELOW,
    RIDGE,
    FeatureCache,
    PictureFeatures,
    cache_features,
    fit_box_regressors,
    fit_svms,
    ridge_regression,
)
from tests.models.detection.region_networks import (
    CLASSES,
    average_precision_at_50,
    batch_of,
    into_slots,
    learn,
    small_rcnn,
    small_sppnet,
)

pytestmark = pytest.mark.timeout(600)  # for busy machines; a quiet one needs a tenth

SETTINGS = SVMSettings(cost=0.05)


def clouds(positives: int, negatives: int, width: int, apart: float) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    above, below = torch.randn(positives, width), torch.randn(negatives, width)
    above[:, 0] += apart
    below[:, 0] -= apart
    return above, below


def objective(plane: Tensor, rows: Tensor, sign: Tensor, cost: Tensor) -> Tensor:
    return 0.5 * plane @ plane + (cost * (1 - sign * (rows @ plane)).clamp(min=0) ** 2).sum()


@pytest.mark.parametrize(
    ("positives", "negatives", "width", "apart"),
    [(20, 300, 5, 1.0), (8, 40, 200, 0.2), (50, 50, 3, 0.1), (1, 30, 10, 3.0)],
)
def test_an_svm_is_the_optimum_as_its_dual_proves(positives, negatives, width, apart):
    above, below = clouds(positives, negatives, width, apart)
    weight, bias = fit(above, below, SETTINGS)
    rows = torch.cat([above, below]).double()
    rows = torch.cat([rows, torch.full((len(rows), 1), BIAS_INPUT)], 1)
    sign = torch.tensor([1.0] * positives + [-1.0] * negatives).double()
    cost = torch.where(sign > 0, SETTINGS.cost * SETTINGS.positive_weight, SETTINGS.cost)
    plane = torch.cat([weight.double(), torch.tensor([bias / BIAS_INPUT])])
    primal = objective(plane, rows, sign, cost)
    # Any alpha >= 0 bounds the optimum from below: sum a - |sum a y x|^2 / 2 - sum a^2 / (4 c).
    alpha = 2 * cost * (1 - sign * (rows @ plane)).clamp(min=0)
    pull = (alpha * sign) @ rows
    dual = alpha.sum() - 0.5 * pull @ pull - (alpha**2 / (4 * cost)).sum()
    assert float(primal - dual) == pytest.approx(0.0, abs=1e-5 * float(primal))


def test_mined_negatives_lead_to_the_svm_of_all_negatives():
    above, below = clouds(20, 4000, 8, 0.8)
    weight, bias = fit(above, below, SETTINGS)
    mine = HardNegatives(above, SETTINGS, refit_after=150)
    pictures = below.split(100)
    for _ in range(4):
        for number, rows in enumerate(pictures):
            mine.offer(number, rows)
        mine.refit()
    assert len(mine.kept) < 0.7 * len(below)
    assert sum(mine.offer(number, rows) for number, rows in enumerate(pictures)) == 0
    torch.testing.assert_close(mine.weight, weight, atol=1e-4, rtol=1e-3)
    assert mine.bias == pytest.approx(bias, abs=1e-4)


def test_a_negative_is_kept_once():
    mine = HardNegatives(torch.ones(2, 3), SETTINGS)
    rows = torch.randn(5, 3)
    assert mine.offer(0, rows) == 5
    assert mine.offer(0, rows) == 0
    assert mine.offer(1, rows) == 5


@pytest.mark.parametrize(("pairs", "width"), [(200, 7), (12, 90)])
def test_ridge_regression_is_the_closed_form(pairs, width):
    torch.manual_seed(0)
    x, y = torch.randn(pairs, width).double() + 2, torch.randn(pairs, 4).double() + 1
    weight, bias = ridge_regression(x, y, 30.0)
    # Solved at once with a column of ones whose weight costs nothing.
    wide = torch.cat([x, torch.ones(pairs, 1)], 1)
    cost = 30.0 * torch.eye(width + 1).double()
    cost[-1, -1] = 0.0
    expected = torch.linalg.inv(wide.T @ wide + cost) @ wide.T @ y
    torch.testing.assert_close(weight, expected[:-1].T)
    torch.testing.assert_close(bias, expected[-1])


@pytest.fixture(scope="module", params=[small_rcnn, small_sppnet], ids=["rcnn", "sppnet"])
def staged(request, tmp_path_factory):
    """A network after fine-tuning, its pictures, and its features on disk."""
    network, batch = request.param(), batch_of(range(4))
    learn(network, batch, 25)
    folder = tmp_path_factory.mktemp("features") / "new"
    return network, batch, cache_features(network, [batch], folder)


def test_the_features_on_disk_are_those_of_the_network(staged):
    network, batch, cache = staged
    picture = list(cache)[2]
    boxes = torch.cat([batch.regions[2], batch.truths[2].boxes])
    with torch.no_grad():
        pooled = network.pool5(batch.frames[2:3], boxes[None])
        hidden = network.hidden(pooled)[0]
    torch.testing.assert_close(picture.hidden, hidden, atol=1e-2, rtol=1e-2)  # half precision
    assert len(picture.pooled) == len(picture.deltas) == len(picture.pair_class)
    assert picture.true_class.tolist()[-3:] == batch.truths[2].class_ids.tolist()
    assert cache.bytes_on_disk > 1000


def test_a_folder_that_holds_features_is_not_mixed_with_others(staged):
    network, batch, cache = staged
    with pytest.raises(FileExistsError, match="give an empty folder"):
        cache_features(network, [batch], cache.folder)


def test_svms_and_regressors_end_in_the_graph(staged):
    network, batch, cache = staged
    fit_svms(network, cache)
    assert network.heads.scores == "svm"
    for picture in cache:
        margins = network.heads.svm(picture.hidden)
        for class_id in range(CLASSES):
            own = margins[picture.true_class == class_id, class_id]
            rest = margins[picture.overlap[:, class_id] < NEGATIVE_BELOW, class_id]
            assert own.min() > rest.max()
    without = best_overlaps(network, batch)
    assert average_precision_at_50(network, batch) > 0.9
    fit_box_regressors(network, cache, ridge=1.0)
    assert average_precision_at_50(network, batch) > 0.9
    assert best_overlaps(network, batch) > without + 0.05


class Watched(FeatureCache):
    """Counts how often it is read, and how many pictures' features are alive at once."""

    def __init__(self, cache: FeatureCache) -> None:
        super().__init__(cache.folder)
        self.passes, self.most = 0, 0
        self.alive: weakref.WeakSet[Tensor] = weakref.WeakSet()

    def __iter__(self) -> Iterator[PictureFeatures]:
        self.passes += 1
        for picture in super().__iter__():
            self.alive.add(picture.hidden)
            self.most = max(self.most, len(self.alive))
            yield picture


def test_regressors_are_those_of_one_class_after_the_other_without_holding_the_cache(staged):
    network, _, cache = staged
    watched, whole = Watched(cache), list(cache)
    layer = copy.deepcopy(network.heads.bbox_pred)
    fit_box_regressors(network, watched)
    pooled = torch.cat([picture.pooled for picture in whole])
    scale = FEATURE_NORM / float(torch.cat([p.pooled.norm(dim=1) for p in whole]).mean())
    for class_id in range(CLASSES):
        own = torch.cat([picture.pair_class for picture in whole]) == class_id
        deltas = torch.cat([picture.deltas for picture in whole])[own]
        weight, bias = ridge_regression(pooled[own] * scale, deltas, RIDGE)
        rows = slice(4 * class_id, 4 * class_id + 4)
        assert torch.equal(network.heads.bbox_pred.weight[rows], weight * scale)
        assert torch.equal(network.heads.bbox_pred.bias[rows], bias)
    network.heads.bbox_pred.load_state_dict(layer.state_dict())
    assert len(whole) > 2 >= watched.most
    assert watched.passes == 1


def test_positives_of_all_classes_are_read_in_one_pass(staged):
    network, _, cache = staged
    watched = Watched(cache)
    fit_svms(network, watched)
    assert len(cache) > 2 >= watched.most
    assert watched.passes == 3  # norms, positives, negatives


def best_overlaps(network, batch: TrainingBatch) -> float:
    """Mean IoU that the first box of each class has with the true one."""
    network.eval().prepare(tuple(batch.frames.shape[1:3]))
    with torch.no_grad():
        boxes, _, labels, _ = network(batch.frames, into_slots(batch.regions, network.regions))
    found = []
    for n, truth in enumerate(batch.truths):
        for box, class_id in zip(truth.boxes, truth.class_ids.tolist(), strict=True):
            first = int((labels[n] == class_id).nonzero()[0])
            found.append(float(box_iou(boxes[n, first][None], box[None])))
    return sum(found) / len(found)


def test_a_class_never_seen_is_never_found(tmp_path):
    network, batch = small_sppnet(), batch_of(range(2))
    truths = [
        Truth(t.boxes[t.class_ids != 1], t.class_ids[t.class_ids != 1], t.boxes[t.class_ids == 1])
        for t in batch.truths
    ]
    nothing = Truth(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0, 4))
    batch = replace(batch, truths=[truths[0], nothing])
    cache = cache_features(network, [batch], tmp_path)
    fit_svms(network, cache)
    fit_box_regressors(network, cache)
    network.prepare((96, 128))
    with torch.no_grad():
        _, scores, labels, _ = network(batch.frames, into_slots(batch.regions, network.regions))
    assert not (labels[scores > 0] == 1).any()


def test_features_that_say_nothing_are_fitted_all_the_same(tmp_path, monkeypatch):
    network, batch = small_sppnet(), batch_of(range(2))
    pool5 = network.pool5
    monkeypatch.setattr(network, "pool5", lambda *given: torch.zeros_like(pool5(*given)))
    cache = cache_features(network, [batch], tmp_path)
    fit_svms(network, cache)
    fit_box_regressors(network, cache)
    assert network.heads.bbox_pred.weight.isfinite().all()
    assert network.heads.svm.weight.isfinite().all()
