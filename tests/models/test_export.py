"""Exported model files: engines find in them what torch finds, and they explain themselves."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from urllib.error import URLError

import numpy as np
import onnx
import onnxruntime
import openvino
import pytest
import torch
import torchvision
from torch.hub import tqdm

from models import weights as weights_module
from models.data.class_names import STREET_NAMES
from models.detection.architectures import faster_rcnn
from models.detection.faster_rcnn import OUTPUTS
from models.detection.frame_size import Resize
from models.export import class_names_of, main
from models.judging.runners import the_core
from models.model_file.onnx_file import METADATA_KEY, halve_weights
from models.model_file.writing import export
from models.onnx_lint import lint
from models.weights import load_weights
from tests.models.detectors import (
    by_torchvision,
    found_in,
    frames,
    matched_share,
    small_detector,
    twins,
)

pytestmark = pytest.mark.timeout(600)  # for busy machines; a quiet one needs a tenth

SIZE_HW = (160, 256)
ENOUGH_PASSES = 8  # of the fixpoint, for these pictures: each makes the graph longer
FORMS = (("candidates", "fixpoint"), ("detections", "nonmaxsuppression"))
"""Output and suppression; the other two pairs are written for torchvision's detectors below."""


def by_onnxruntime(path: Path, pixels: torch.Tensor) -> list[torch.Tensor]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return [torch.from_numpy(x) for x in session.run(None, {"frames": pixels.numpy()})]


def by_openvino(path: Path, pixels: torch.Tensor) -> list[torch.Tensor]:
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    compiled = the_core().compile_model(path, "CPU", settings)
    outputs = compiled([pixels.numpy()])
    return [torch.from_numpy(outputs[output].copy()) for output in compiled.outputs]


ENGINES = {"onnxruntime": by_onnxruntime, "openvino": by_openvino}


@pytest.fixture(scope="module", autouse=True)
def _no_progress_monitor():
    """torch.export makes progress bars, unseen ones; each starts a thread to watch over it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tqdm, "monitor_interval", 0, raising=False)
        yield


@pytest.fixture(scope="module")
def small_model():
    return small_detector(SIZE_HW)


@pytest.fixture(scope="module")
def small_files(small_model, tmp_path_factory) -> dict[tuple[str, str], Path]:
    """The small model in both forms of output and of suppression."""
    folder = tmp_path_factory.mktemp("exported")
    files = {}
    for form, body in FORMS:
        path = files[form, body] = folder / f"{form}-{body}.onnx"
        export(
            small_model,
            path,
            frame_hw=SIZE_HW,
            class_names=STREET_NAMES,
            output_form=form,
            nms_body=body,
            nms_iterations=ENOUGH_PASSES,
            score_threshold=0.4,
            provenance={"architecture": "mobilenet_v2_fpn", "date": "2026-11-21"},
        )
    return files


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("form", "body"), FORMS)
def test_an_engine_finds_what_torch_finds(small_model, small_files, form, body, engine):
    pixels = frames(3, SIZE_HW, seed=5)
    small_model.prepare(SIZE_HW, output_form="detections")
    with torch.inference_mode():
        reference = found_in(small_model(pixels), "detections")
    for batch in (pixels, pixels[:1]):  # one file, any batch
        outputs = ENGINES[engine](small_files[form, body], batch)
        assert outputs[-1].tolist() == [True] * len(batch)
        shares = [
            matched_share(*pair) for pair in zip(reference, found_in(outputs, form), strict=False)
        ]
        assert np.mean(shares) >= 0.99


@pytest.mark.parametrize(
    ("architecture", "resize", "form", "body"),
    [
        # The other two, mobilenet_v3_large_fpn and resnet50_fpn, have these graphs with other
        # numbers; in torch all four are held against torchvision's, in test_faster_rcnn.
        ("mobilenet_v3_large_320_fpn", Resize(320, 640), "detections", "fixpoint"),
        ("resnet50_fpn_v2", Resize(128, 256), "candidates", "nonmaxsuppression"),
    ],
)
def test_engines_find_what_torchvision_finds(architecture, resize, form, body, tmp_path):
    theirs, ours = (model.float() for model in twins(architecture, resize))
    frame_hw = (270, 480)
    pixels = frames(2, frame_hw)
    reference = by_torchvision(theirs, pixels)
    path = tmp_path / "model.onnx"
    names = class_names_of(90)
    export(
        ours, path, frame_hw=frame_hw, class_names=names, output_form=form, nms_body=body,
        nms_iterations=ENOUGH_PASSES,
    )  # fmt: skip  # a table
    assert lint(path) == []
    for engine in ENGINES.values():
        outputs = engine(path, pixels)
        assert outputs[-1].all()
        found = found_in(outputs, form, slots=1000)
        shares = [matched_share(*pair) for pair in zip(reference, found, strict=True)]
        assert np.mean(shares) >= 0.99


def test_every_exported_graph_suits_tensorrt(small_files):
    for path in small_files.values():
        assert lint(path) == []


def test_the_file_explains_itself(small_model, small_files):
    for (form, body), path in small_files.items():
        proto = onnx.load(path)
        (entry,) = proto.metadata_props
        about = json.loads(entry.value)
        assert entry.key == METADATA_KEY
        assert about == {
            "schema": 1,
            "task": "detection",
            "output_form": form,
            "class_names": list(STREET_NAMES),
            "input_size_hw": list(SIZE_HW),
            "fit": "letterbox",
            "outputs": list(OUTPUTS[form]),
            "score_threshold": 0.4,
            "nms_iou": 0.5,
            "max_detections": 100,
            "nms_body": body,
            "proposals": {
                "per_level": small_model.rpn.settings.pre_nms,
                "kept": small_model.rpn.settings.post_nms,
            },
            "provenance": {"architecture": "mobilenet_v2_fpn", "date": "2026-11-21"},
        }
        assert [output.name for output in proto.graph.output] == about["outputs"]
        shape = proto.graph.input[0].type.tensor_type.shape
        assert [d.dim_param or d.dim_value for d in shape.dim] == ["N", *SIZE_HW, 3]
        assert str(Path(__file__).parents[2]).encode() not in path.read_bytes()


def test_halved_weights_are_the_same_weights_rounded(small_files, tmp_path):
    full_path, path = small_files[FORMS[0]], tmp_path / "half.onnx"
    proto = onnx.load(full_path)
    halve_weights(proto)
    onnx.save(proto, path)
    full, half = (constants(onnx.load(p)) for p in (full_path, path))
    rounded = [name for name in full if name not in half]
    assert len(rounded) > 60
    for name, value in full.items():
        if name in rounded:
            other = half[f"{name}_half"]
            assert other.dtype == np.float16
            np.testing.assert_allclose(other.astype(np.float32), value, rtol=1e-3, atol=1e-7)
        else:  # anchors and tables
            np.testing.assert_array_equal(half[name], value)
    for engine in ENGINES.values():
        assert engine(path, frames(1, SIZE_HW))[-1].all()


def constants(proto: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {x.name: onnx.numpy_helper.to_array(x) for x in proto.graph.initializer}


@pytest.mark.skipif(
    "BF16" not in the_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"),
    reason="this processor knows no bfloat16",
)
@pytest.mark.parametrize(("form", "body"), FORMS)
def test_coordinates_stay_in_float32_when_openvino_computes_in_bfloat16(small_files, form, body):
    settings = {"INFERENCE_PRECISION_HINT": "bf16"}
    path = small_files[form, body]
    graph = the_core().compile_model(path, "CPU", settings).get_runtime_model()
    nodes = graph.get_ordered_ops()
    assert any("bf16" in precisions(node) for node in nodes if kind(node) == "Convolution")
    (pooling,) = (node for node in nodes if kind(node) == "ROIAlign")
    boxes = pooling.input(1).get_source_output().get_node()
    for node in since_choice(boxes):
        assert "bf16" not in precisions(node), node.get_friendly_name()
    pairs = [node for node in nodes if is_square(node)]
    assert bool(pairs) == (body == "fixpoint")
    for node in pairs:  # the overlaps
        assert "bf16" not in precisions(node), node.get_friendly_name()


def is_square(node: openvino.Node) -> bool:
    """Whether it makes (G, K, K): something about pairs of boxes."""
    if node.get_output_size() == 0:
        return False
    sides = list(node.get_output_partial_shape(0))
    return len(sides) == 3 and sides[1] == sides[2] != 1


def kind(node: openvino.Node) -> str:
    return str(node.get_rt_info()["layerType"].astype(str))


def precisions(node: openvino.Node) -> str:
    info = node.get_rt_info()
    return f"{info['runtimePrecision'].astype(str)} {info['outputPrecisions'].astype(str)}"


def since_choice(node: openvino.Node) -> list[openvino.Node]:
    """The node and all before it, back to where the proposals were chosen or to constants."""
    if kind(node) in ("TopK", "GatherElements", "Const", "Constant", "Input"):
        return []
    before = (i.get_source_output().get_node() for i in node.inputs())
    return [node, *(earlier for parent in before for earlier in since_choice(parent))]


def test_class_names_must_be_as_many_as_classes(small_model, tmp_path):
    with pytest.raises(ValueError, match="6 classes need names, got 2"):
        export(small_model, tmp_path / "m.onnx", frame_hw=SIZE_HW, class_names=["a", "b"])
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoints_weights_are_read(small_model, tmp_path):
    torch.save({"model": small_model.state_dict(), "step": 7}, tmp_path / "weights.pth")
    model, about = load_weights("mobilenet_v2_fpn", str(tmp_path / "weights.pth"))
    assert about["weights"] == "weights.pth"
    assert torch.equal(model.rpn.head.cls_logits.bias, small_model.rpn.head.cls_logits.bias)


@pytest.mark.parametrize(
    "words", [("yolo_v2", "--min-score", "0.3"), ("mobilenet_v2_fpn", "--palette", "1,2,3")]
)
def test_what_a_network_does_not_have_is_refused(words, tmp_path, small_model, capsys):
    torch.save(small_model.state_dict(), tmp_path / "weights.pth")
    words = [*words, "--weights", str(tmp_path / "weights.pth"), "--names", "a,b,c,d,e,f"]
    assert main([*words, "--size", "64x96", "--out", str(tmp_path / "m.onnx")]) == 2
    assert words[1] in capsys.readouterr().err


def test_published_weights_without_a_network_name_the_way_out(monkeypatch, tmp_path, capsys):
    def no_network(*_args, **_kwargs):
        raise URLError("Temporary failure in name resolution")

    monkeypatch.setattr(torchvision.models._api, "load_state_dict_from_url", no_network)
    out = str(tmp_path / "model.onnx")
    words = ["resnet50_fpn", "--weights", "DEFAULT", "--size", "360x640", "--out", out]
    assert main(words) == 4
    error = capsys.readouterr().err
    assert (
        "fasterrcnn_resnet50_fpn_coco-258fb6c6.pth" in error
        and "give it instead of DEFAULT" in error
    )
    assert list(tmp_path.iterdir()) == []


def test_published_weights_of_the_first_resnet_bring_their_epsilon(monkeypatch):
    for architecture, eps in (("resnet50_fpn", 0.0), ("resnet50_fpn_v2", 1e-5)):
        state = faster_rcnn(architecture).state_dict()
        monkeypatch.setattr(
            torchvision.models._api, "load_state_dict_from_url", lambda *_, state=state, **__: state
        )
        model, about = load_weights(architecture, "DEFAULT")
        norms = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
        assert {norm.eps for norm in norms} == {eps}
        assert about["training_data"] == "COCO train2017"


def test_the_first_resnets_file_is_known_by_its_digest(monkeypatch, tmp_path):
    path = tmp_path / "weights.pth"
    torch.save(faster_rcnn("resnet50_fpn").state_dict(), path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setattr(weights_module, "SHA256_WITHOUT_EPSILON", digest[:8])
    model, _ = load_weights("resnet50_fpn", str(path))
    assert model.backbone.body["bn1"].eps == 0.0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot read weights"),
        (b"not a pickle", "cannot read weights"),
        ([1, 2], "holds a list"),
        ({"fc.weight": torch.zeros(1)}, "does not hold a mobilenet_v2_fpn"),
        (
            {"roi_heads.box_predictor.cls_score.bias": torch.zeros(3), "fc.weight": torch.ones(1)},
            "weights are missing, 0 have another shape and 1 are none of its own, such as backbone",
        ),
    ],
    ids=["missing", "text", "list", "other", "another of two classes"],
)
def test_wrong_weights_end_with_a_reason_and_code_4(content, message, tmp_path, capsys):
    path = tmp_path / "weights.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    words = ["mobilenet_v2_fpn", "--weights", str(path), "--size", "64x96"]
    assert main([*words, "--out", str(tmp_path / "model.onnx")]) == 4
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_nobody_publishes_weights_of_the_small_model(tmp_path, capsys):
    words = ["mobilenet_v2_fpn", "--weights", "DEFAULT", "--size", "64x96", "--out"]
    assert main([*words, str(tmp_path / "m.onnx")]) == 4
    assert "--weights FILE" in capsys.readouterr().err


def test_the_names_of_a_number_of_classes():
    assert class_names_of(6) == list(STREET_NAMES)
    assert class_names_of(2) == ["class 0", "class 1"]


@pytest.mark.parametrize("size", ["640", "0x5", "axb", "3x4x5"])
def test_a_size_that_is_none_ends_with_code_2(size, capsys):
    with pytest.raises(SystemExit) as end:
        main(["mobilenet_v2_fpn", "--weights", "w", "--size", size, "--out", "m.onnx"])
    assert end.value.code == 2
    assert "HEIGHTxWIDTH" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--min-score", "1.5"], "between 0 and 1"),
        (["--threshold", "nan"], "between 0 and 1"),
        (["--min-score", "low"], "between 0 and 1"),
        (["--provenance", "date"], "KEY=VALUE"),
        (["--provenance", "=x"], "KEY=VALUE"),
        (["--proposals", "0"], "a whole number from 1 on"),
        (["--per-level", "1.5"], "a whole number from 1 on"),
    ],
)
def test_options_that_mean_nothing_end_with_code_2(words, reason, capsys):
    with pytest.raises(SystemExit) as end:
        main(["mobilenet_v2_fpn", "--weights", "w", "--size", "64x96", "--out", "m.onnx", *words])
    assert end.value.code == 2
    assert reason in capsys.readouterr().err
