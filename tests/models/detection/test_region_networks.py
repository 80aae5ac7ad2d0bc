"""R-CNN, SPPnet and Fast R-CNN as whole networks: they learn, they export, and they are what their
papers say."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from models.detection.fast_rcnn import compress, fast_rcnn
from models.detection.frame_size import Resize
from models.detection.losses import Truth
from models.detection.rcnn import rcnn
from models.detection.region_trunks import HiddenLayers, truncated
from models.detection.sppnet import PyramidPool, closest_scale, sppnet
from models.network import DETECTION_OUTPUTS
from models.onnx_lint import lint
from models.published import load_state, state_in
from models.training.starting_weights import load_fitting
from tests.models.detection.region_networks import (
    CLASSES,
    ENGINES,
    REGIONS,
    SMALL,
    average_precision_at_50,
    batch_of,
    exported,
    into_slots,
    learn,
    picture,
    proposals,
    small_fast_rcnn,
    small_rcnn,
    small_sppnet,
)
from tests.models.detectors import matched_share

pytestmark = pytest.mark.timeout(600)  # for busy machines; a quiet one needs a tenth

BUILDERS = {"rcnn": rcnn, "sppnet": sppnet, "fast_rcnn": fast_rcnn}
STEPS = {"rcnn": 25, "sppnet": 60, "fast_rcnn": 60}


@pytest.mark.parametrize("name", SMALL)
def test_four_pictures_are_learned_by_heart(name):
    network, batch = SMALL[name](), batch_of(range(4))
    before = average_precision_at_50(network, batch)
    learn(network, batch, STEPS[name])
    assert before < 0.5
    assert average_precision_at_50(network, batch) > 0.9


@pytest.mark.parametrize("name", SMALL)
def test_a_picture_without_objects_teaches_that_all_is_background(name):
    network, batch = SMALL[name](), batch_of(range(2))
    nothing = Truth(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0, 4))
    batch = replace(batch, truths=[nothing, nothing])
    for loss in network.train().losses(batch).values():
        assert torch.isfinite(loss)
        assert loss.requires_grad
    learn(network, batch, 30)
    network.eval().prepare((96, 128))
    with torch.no_grad():
        _, scores, _, exact = network(batch.frames, into_slots(batch.regions, REGIONS))
    assert not scores.any()
    assert exact.all()


@pytest.mark.parametrize("size_hw", [(97, 131), (50, 333)])
@pytest.mark.parametrize("name", SMALL)
def test_frames_may_have_odd_sizes(name, size_hw):
    network = SMALL[name]().eval().prepare(size_hw)
    network.settings = replace(network.settings, min_score=0.0)
    frame, truth = picture(0, size_hw)
    regions = proposals(truth, size_hw, 0)[None]
    regions[:, 30:] = 0.0
    with torch.no_grad():
        boxes, scores, labels, exact = network(frame[None], regions)
    assert boxes.shape == (1, REGIONS * CLASSES, 4)
    assert int((scores > 0).sum()) == 30 * CLASSES
    limit = torch.tensor([size_hw[1], size_hw[0]] * 2)
    assert ((boxes >= 0) & (boxes <= limit)).all()
    assert (labels < CLASSES).all()
    assert exact.dtype == torch.bool


@pytest.mark.parametrize("name", SMALL)
def test_empty_slots_change_nothing_for_the_others(name):
    network = SMALL[name]().eval().prepare((96, 128))
    network.settings = replace(network.settings, min_score=0.0)
    frame, truth = picture(3)
    regions = proposals(truth, (96, 128), 3)[None, :20]
    mixed = torch.cat([torch.zeros(1, 7, 4), regions, torch.zeros(1, 13, 4)], 1)
    with torch.no_grad():
        alone, among = network(frame[None], regions), network(frame[None], mixed)
    filled = 20 * CLASSES
    few, many = ([x[0, :filled] for x in outputs[:3]] for outputs in (alone, among))
    assert matched_share(in_order(few), in_order(many)) == 1.0
    assert not any(x[0, filled:].any() for x in among[:3])


@pytest.mark.parametrize("name", SMALL)
def test_frames_of_a_batch_do_not_mix(name):
    network, batch = SMALL[name]().eval().prepare((96, 128)), batch_of(range(3))
    network.settings = replace(network.settings, min_score=0.0)
    regions = into_slots(batch.regions, REGIONS)
    with torch.no_grad():
        together = network(batch.frames, regions)
        for n in range(3):
            alone = network(batch.frames[n : n + 1], regions[n : n + 1])
            torch.testing.assert_close(alone[1][0], together[1][n])


@pytest.mark.parametrize("name", SMALL)
def test_a_network_in_training_mode_cannot_be_prepared(name):
    with pytest.raises(ValueError, match="eval"):
        SMALL[name]().train().prepare((96, 128))


@pytest.fixture(scope="module", params=SMALL)
def on_file(request, tmp_path_factory):
    """A network that finds something, and its file."""
    network = SMALL[request.param]()
    learn(network, batch_of(range(4)), 12)
    network.settings = replace(network.settings, candidates=REGIONS * CLASSES)
    if request.param != "fast_rcnn":
        torch.manual_seed(2)
        network.heads.scores = "svm" if request.param == "rcnn" else "softmax"
        for layer in (network.heads.svm, network.heads.bbox_pred):
            nn.init.normal_(layer.weight, std=0.05)
    file = tmp_path_factory.mktemp("exported") / "network.onnx"
    return network, exported(network, (97, 130), file)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_engines_find_what_torch_finds(on_file, engine):
    network, file = on_file
    batch = batch_of(range(7, 10), (97, 130))
    regions = into_slots(batch.regions, REGIONS)
    regions[1, 3:20] = 0.0
    regions[2] = 0.0
    with torch.no_grad():
        expected = network(batch.frames, regions)
    found = ENGINES[engine](file, batch.frames, regions)
    assert len(found) == len(DETECTION_OUTPUTS)
    assert torch.equal(found[3], expected[3])
    for n in range(3):
        ours, theirs = ([x[n][o[1][n] > 0] for x in o[:3]] for o in (expected, found))
        assert matched_share(in_order(ours), in_order(theirs)) > 0.99
    assert (expected[1][0] > 0).sum() > 20
    assert not found[1][2].any()


def in_order(outputs: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """boxes, labels, scores."""
    boxes, scores, labels = outputs
    return boxes, labels, scores


@pytest.mark.slow
def test_the_graph_holds_nothing_that_tensorrt_does_not_import(on_file):
    _, file = on_file
    assert lint(file) == []


def test_no_gradient_reaches_the_convolutions_of_sppnet():
    network, batch = small_sppnet().train(), batch_of(range(2))
    network.losses(batch)["class"].backward()
    assert all(p.grad is None for p in network.backbone.parameters())
    assert network.hidden.fc6.weight.grad.abs().sum() > 0
    assert not network.backbone.training


@pytest.mark.parametrize("build", [small_rcnn, small_fast_rcnn])
def test_gradients_reach_the_convolutions_of_the_others(build):
    network, batch = build().train(), batch_of(range(2))
    sum(network.losses(batch).values()).backward()
    assert all(p.grad.abs().sum() > 0 for p in network.backbone.parameters())


def test_fast_rcnn_pools_the_same_in_training_and_in_the_graph():
    network, batch = small_fast_rcnn().eval(), batch_of(range(2))
    boxes = into_slots(batch.regions, REGIONS)
    with torch.no_grad():
        features = network.features(batch.frames)
        graph, _ = network.pool.atlas([features], boxes)
        training = network.pool([features], boxes)
    assert torch.equal(graph, training)


def test_a_resized_fast_rcnn_is_one_fed_with_resized_pictures():
    torch.manual_seed(0)
    network = small_fast_rcnn().eval()
    frame, truth = picture(0)
    regions = proposals(truth, (96, 128), 0)[None]
    network.resize = Resize(192, 1000)
    with torch.no_grad():
        features = network.features(frame[None])
        images = F.interpolate(network.normalise(frame[None]), scale_factor=2, mode="bilinear")
        torch.testing.assert_close(features, network.backbone(images)[8])
    torch.testing.assert_close(network.to_image(regions, (96, 128)), regions * 2)


def test_rcnn_gives_the_same_however_many_crops_go_at_once():
    network, batch = small_rcnn().eval(), batch_of(range(2))
    regions = into_slots(batch.regions, REGIONS)
    with torch.no_grad():
        few = network.pool5(batch.frames, regions)
        network.crops_at_once = 1000
        torch.testing.assert_close(network.pool5(batch.frames, regions), few)


def test_each_region_is_pooled_from_the_scale_where_it_is_nearest_to_224_squared():
    torch.manual_seed(0)
    corner = torch.rand(1, 200, 2) * 300
    regions = torch.cat([corner, corner + 1 + torch.rand(1, 200, 2) * 200], 2)
    ratios = [s / 375 for s in (480, 576, 688, 864, 1200)]
    chosen = closest_scale(regions, torch.tensor([[r, r] for r in ratios]), 224)[0]
    for (x1, y1, x2, y2), scale in zip(regions[0].tolist(), chosen.tolist(), strict=True):
        off = [abs((x2 - x1) * (y2 - y1) * r * r - 224**2) for r in ratios]
        assert off[scale] == pytest.approx(min(off), rel=1e-4)
    assert len(chosen.unique()) == 5


def test_multi_size_training_pools_the_same_regions_at_several_sizes():
    network, batch = small_sppnet(), batch_of(range(2))
    drawn = into_slots(batch.regions, REGIONS)
    with torch.no_grad():
        small, large = (network.pool5(batch.frames, drawn, size) for size in (20, 60))
    assert not torch.allclose(small, large)
    network.training_windows = (20, 60)
    assert torch.isfinite(network.losses(batch)["class"])


def alexnet_classifier() -> nn.Module:
    torch.manual_seed(0)
    classifier = torchvision.models.alexnet(weights=None, num_classes=5).eval()
    with torch.no_grad():
        for layer in classifier.classifier:
            if isinstance(layer, nn.Linear):
                layer.weight.mul_(3)
    return classifier


def classified(network, frames: Tensor) -> Tensor:
    """Logits of a whole picture as one region, by a network with the classifier's last layer."""
    height, width = frames.shape[1:3]
    whole = torch.tensor([[[0.0, 0.0, float(width), float(height)]]])
    return network.heads.cls_score(network.hidden(network.pool5(frames, whole)))[:, 0]


def test_rcnn_with_one_region_equal_to_the_picture_is_the_classifier():
    classifier = alexnet_classifier()
    network = rcnn("alexnet", 4, context_pixels=0).eval()
    network.load_classifier(classifier.state_dict())
    network.heads.cls_score.load_state_dict(classifier.classifier[6].state_dict())
    frames = torch.randint(0, 256, (1, 227, 227, 3), dtype=torch.uint8)
    with torch.no_grad():
        expected = classifier(network.normalise(frames))
        torch.testing.assert_close(classified(network, frames), expected, atol=1e-4, rtol=1e-4)


def test_sppnet_with_one_region_equal_to_the_picture_is_the_classifier():
    classifier = alexnet_classifier()
    network = sppnet("alexnet", 4, scales=(224,)).eval()
    network.load_classifier(classifier.state_dict())
    network.heads.cls_score.load_state_dict(classifier.classifier[6].state_dict())
    frames = torch.randint(0, 256, (1, 224, 224, 3), dtype=torch.uint8)
    with torch.no_grad():
        expected = classifier(network.normalise(frames))
        torch.testing.assert_close(classified(network, frames), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("build", [rcnn, fast_rcnn])
@pytest.mark.parametrize("name", ["alexnet", "vgg16"])
def test_weights_of_torchvision_load_one_to_one(build, name):
    with torch.device("meta"):  # half a gigabyte of weights: their shapes tell enough
        classifier = torchvision.models.get_model(name, weights=None)
    state = {
        key: torch.empty(value.shape, dtype=value.dtype).fill_(0.25)
        if key.startswith("classifier")
        else torch.zeros(value.shape)
        for key, value in classifier.state_dict().items()
    }
    with torch.device("meta"):
        network = build(name, 3)
    network.to_empty(device="cpu").load_classifier(state)
    for layer in (network.hidden.fc6, network.hidden.fc7):
        assert (layer.weight == 0.25).all()
        assert (layer.bias == 0.25).all()
    assert not any(p.any() for p in network.backbone.parameters())


def test_the_hidden_layers_of_another_classifier_are_refused():
    state = torchvision.models.mobilenet_v2(weights=None).state_dict()
    with pytest.raises((RuntimeError, KeyError)):
        HiddenLayers(10, 8, ("classifier.0", "classifier.3")).load_classifier(state)


@pytest.mark.parametrize("name", BUILDERS)
def test_every_builder_takes_mobilenet(name):
    network = BUILDERS[name]("mobilenet_v2", 6, regions=20)
    state = torchvision.models.mobilenet_v2(weights=None).state_dict()
    network.load_classifier(state)
    first = next(iter(network.backbone.body.state_dict().values()))
    assert torch.equal(first, state["features.0.0.weight"])
    frame, truth = picture(0)
    network.eval().prepare((96, 128))
    with torch.no_grad():
        outputs = network(frame[None], proposals(truth, (96, 128), 0, 20)[None])
    assert outputs[0].shape == (1, 20 * 6, 4)
    assert (network.task, network.num_classes, network.regions) == ("detection", 6, 20)
    assert network.proposer == "selective_search_fast"


def test_an_unknown_backbone_is_refused():
    with pytest.raises(ValueError, match="known: alexnet, vgg16, mobilenet_v2"):
        rcnn("lenet")


def test_sppnet_without_the_classifiers_bins_keeps_fc6_random():
    pool = sppnet("alexnet", 2, grids=(4, 2, 1)).pool
    assert isinstance(pool, PyramidPool)
    assert not pool.continues_classifier
    assert pool.length == 21 * 256


def test_truncation_keeps_the_nearest_layer_of_its_rank():
    torch.manual_seed(0)
    layer = nn.Linear(30, 20)
    x = torch.randn(8, 30)
    torch.testing.assert_close(truncated(layer, 20)(x), layer(x), atol=1e-5, rtol=1e-4)
    thin = truncated(layer, 5)
    weight = thin[1].weight @ thin[0].weight
    values = torch.linalg.svdvals(layer.weight.detach())
    # Eckart and Young: what is missing are the smallest singular values.
    missing = float((values[5:] ** 2).sum().sqrt())
    assert float((layer.weight - weight).detach().norm()) == pytest.approx(missing, rel=1e-4)
    assert sum(p.numel() for p in thin.parameters()) == 5 * (30 + 20) + 20


def test_a_compressed_fast_rcnn_still_finds_what_it_found():
    network, batch = small_fast_rcnn(), batch_of(range(4))
    learn(network, batch, 60)
    compress(network, fc6_rank=24, fc7_rank=24)
    assert average_precision_at_50(network, batch) > 0.9
    with pytest.raises(ValueError, match="compressed already"):
        compress(network, 4, 4)


@pytest.mark.parametrize("scores", ["svm", "softmax"])
def test_a_network_that_was_saved_scores_as_it_did(scores, tmp_path):
    network, again = small_rcnn(), small_rcnn()
    nn.init.ones_(network.heads.svm.weight)
    network.heads.scores = scores
    torch.save(network.state_dict(), tmp_path / "w.pt")
    load_state(again, state_in(tmp_path / "w.pt"), "not the same")
    assert again.heads.scores == scores
    # What learns is the softmax, until SVMs are fitted anew.
    assert load_fitting(again, tmp_path / "w.pt") == []
    assert again.heads.scores == "softmax"


@pytest.mark.parametrize(("fitted", "scores"), [(True, "svm"), (False, "softmax")])
def test_older_weights_are_scored_by_svms_if_they_have_any(fitted, scores):
    network, again = small_sppnet(), small_sppnet()
    if fitted:
        nn.init.ones_(network.heads.svm.weight)
    older = network.state_dict()
    del older["heads._extra_state"]
    again.load_state_dict(older)
    assert again.heads.scores == scores
