"""ONNX files: what they compute, what they say of themselves, what test.py makes of them, and what is refused."""

import json
from argparse import Namespace

import numpy as np
import pytest
import torch
from conftest import TINY
from PIL import Image
from torch import nn

import export
from inference import onnx_export
from inference.onnx_model import OnnxModel
from options import parse_export, parse_training
from readers.domains import PICTURES, pictures_of, plain
from runtime import checkpoints
from runtime.errors import UserError
from runtime.libraries import library
from spectral_norm import fold_spectral_norm
from translators import Translators

onnxruntime = pytest.importorskip("onnxruntime")

KINDS = {
    "attention": ["--recipe=attention"],
    "lsgan": ["--recipe=lsgan"],
    "classic": ["--recipe=classic"],
    "notebook": ["--recipe=notebook"],
    "segmentation": ["--recipe=segmentation"],
    "learned": ["--recipe=lsgan", "--mask=learned"],
    "gray": ["--recipe=lsgan", "--channels=1"],
}


def translators_of(flags):
    """Networks whose translations differ from place to place, as new ones' do not."""
    torch.manual_seed(0)
    translators = Translators(parse_training([*flags, "--ngf=4", "--n_residual_blocks=1"])[0])
    for module in translators.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            module.weight.data.normal_(0, 0.1)
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return fold_spectral_norm(translators).requires_grad_(False)


def write(translators, folder, *flags):
    channels = {f"channels_{side}": count for side, count in translators.channels.items()}
    about = {"domains": json.dumps(plain(pictures_of(Namespace(**channels))))}
    name, content, _ = onnx_export.encode(translators, "AtoB", about, parse_export(flags))
    (folder / name).write_bytes(content)
    return folder / name


@pytest.mark.parametrize("kind", KINDS)
def test_every_recipe_translates_as_torch_does(kind, tmp_path):
    """At sizes that the exporter never saw, from few pixels to more than the attention's shortcut takes."""
    translators = translators_of(KINDS[kind])
    session = OnnxModel(write(translators, tmp_path)).session
    multiple, least, channels = translators.multiple, translators.min_size, translators.channels["A"]
    for n, height, width in ((1, 2, 3), (3, 33, 50), (1, 133, 139)):
        image = np.random.default_rng(0).integers(0, 256, (n, height, width, channels), dtype=np.uint8)
        up = [(max(side, least) + multiple - 1) // multiple * multiple - side for side in (height, width)]
        padded = np.pad(image, [(0, 0), (0, up[0]), (0, up[1]), (0, 0)], mode="reflect")
        x = torch.from_numpy(padded).permute(0, 3, 1, 2) / 127.5 - 1
        expected = (translators.translate("A", x)[0].permute(0, 2, 3, 1) + 1)[:, :height, :width] * 127.5
        [got] = session.run(None, {"image": image})
        assert got.dtype == np.uint8 and np.abs(got - expected.numpy()).max() <= 0.5 + 127.5 * 1e-3
        assert expected.std() > 1


def test_floats(tmp_path):
    translators = translators_of(KINDS["lsgan"])
    model = OnnxModel(write(translators, tmp_path, "--io=float"))
    for size in ((1, 3, 8, 24), (3, 3, 20, 28)):
        x = torch.rand(size) * 2 - 1
        torch.testing.assert_close(model.translate("A", x)[0], translators.translate("A", x)[0], atol=1e-3, rtol=0)


def test_given_masks_leave_black_as_it_is(tmp_path):
    """To the last bit, and with the threshold where it belongs: of all grays, 0 to 32 are black."""
    session = OnnxModel(write(translators_of(KINDS["segmentation"]), tmp_path)).session
    grays = np.repeat(np.arange(256, dtype=np.uint8), 3).reshape(1, 16, 16, 3)
    [got] = session.run(None, {"image": grays})
    kept = (got == grays).all(-1).flatten()
    assert kept[:33].all() and not kept[33:].all()


def test_half_the_size(tmp_path):
    translators = translators_of(["--recipe=lsgan", "--ngf=4"])
    translators.G_AB.transformer.extend(nn.Conv2d(16, 16, 9, padding=4) for _ in range(9))  # weights outweigh the graph
    whole = OnnxModel(path := write(translators, tmp_path))
    size = path.stat().st_size
    half = OnnxModel(write(translators, tmp_path, "--half"))
    assert path.stat().st_size < 0.6 * size
    x = torch.rand(1, 3, 32, 32) * 2 - 1
    assert (whole.translate("A", x)[0] - half.translate("A", x)[0]).abs().max() < 0.05
    assert half.session.get_modelmeta().custom_metadata_map["weights"] == "float16"


def test_a_runtime_that_opens_other_files_is_refused(workplace, monkeypatch):
    monkeypatch.setattr(onnxruntime, "__version__", "1.23.2")
    with pytest.raises(UserError, match="onnxruntime 1.23 opens any file that a model names; install 1.24 or newer"):
        OnnxModel("any.onnx")


@pytest.mark.parametrize("wrong", [0.01, float("nan")])
def test_a_file_that_differs_from_torch_is_not_left_behind(wrong, workplace, run, refused, monkeypatch):
    assert run("cycle_gan", *TINY, "--n_epochs=1").code == 0
    difference = onnx_export.Bytes.difference
    monkeypatch.setattr(onnx_export.Bytes, "difference", lambda *given: difference(*given) + wrong)
    assert "differs from torch by" in refused("export", "--dataset_name=tiny")
    assert not (workplace / "exports").exists()


def test_as_a_user_would(workplace, run, refused):
    assert run("cycle_gan", *TINY, "--n_epochs=1", "--recipe=attention").code == 0
    result = run("export", "--dataset_name=tiny")
    assert result.code == 0 and "BtoA.onnx: 0." in result.out and "largest difference from torch" in result.out
    about = OnnxModel("exports/tiny/AtoB.onnx").session.get_modelmeta().custom_metadata_map
    assert about["direction"] == "AtoB" and about["images"] == "uint8 N×H×W×C, 0 to 255"
    assert (about["channels_in"], about["channels_out"], about["multiple"], about["min_size"]) == ("3", "3", "4", "8")
    assert json.loads(about["options"])["ngf"] == 4 and about["epoch"] == "1"
    written = json.loads((workplace / "saved_models/tiny/runs.jsonl").read_text())["revision"]
    assert about["training_revision"] == (written or "unknown")
    content = (workplace / "exports/tiny/AtoB.onnx").read_bytes()
    for path in (str(workplace), onnx_export.__file__):
        assert path.encode() not in content  # nothing of the machine
    state = checkpoints.find("saved_models/tiny")[1]
    elsewhere = {**state, "options": {**state["options"], "init_from": "/home/me/model"}}
    assert "/home/me" not in str(export.about("tiny", elsewhere, None))

    assert run("test", "--dataset_name=tiny", "--n_cpu=0", "--amp=off").code == 0
    assert run("test", "--dataset_name=tiny", "--n_cpu=0", "--onnx=exports/tiny/AtoB.onnx").code == 0
    for path in (workplace / "results/tiny/epoch_1/AtoB").iterdir():
        torch_image, onnx_image = (
            np.asarray(Image.open(p), int) for p in (path, f"results/tiny/AtoB/AtoB/{path.name}")
        )
        assert np.abs(torch_image - onnx_image).max() <= 1
    alone = run("test", "--onnx=exports/tiny/AtoB.onnx", "--input=datasets/tiny/testA", "--n_cpu=0")
    assert alone.code == 0 and (workplace / "results/tiny/AtoB/input/AtoB/0.png").exists()
    assert "tiny/testA →" in run("test", "--onnx=exports/tiny/AtoB.onnx", "--n_cpu=0").err  # as its folder is called
    (workplace / "exports/other").mkdir()
    (workplace / "exports/other/AtoB.onnx").write_bytes(content)
    assert "datasets/other" in refused("test", "--onnx=exports/other/AtoB.onnx", "--n_cpu=0")
    assert "translates AtoB, not" in refused("test", "--onnx=exports/tiny/AtoB.onnx", "--direction=BtoA")
    assert "--tile" in refused("test", "--onnx=exports/tiny/AtoB.onnx", "--tile=64")
    assert "--compile" in refused("test", "--onnx=exports/tiny/AtoB.onnx", "--compile")
    line = refused("test", "--dataset_name=tiny", "--onnx=exports/tiny/AtoB.onnx", "--n_cpu=0", "--decoded_limit=1e-9")
    assert "--decoded_limit is 1e-09" in line


def test_files_of_others_are_refused(workplace, refused):
    onnx = pytest.importorskip("onnx")
    (workplace / "text.onnx").write_text("no model")

    def model(**about):
        """A graph that adds a tensor whose values stand in another file."""
        weight = onnx.TensorProto(name="w", data_type=1, dims=[1], data_location=onnx.TensorProto.EXTERNAL)
        weight.external_data.add(key="location", value="text.onnx")
        ends = [onnx.helper.make_tensor_value_info(name, 1, ["N", 3, "H", "W"]) for name in ("image", "translation")]
        node = onnx.helper.make_node("Add", ["image", "w"], ["translation"])
        graph = onnx.helper.make_graph([node], "g", ends[:1], ends[1:], [weight] if about.pop("elsewhere", 0) else [])
        if not weight.external_data or not graph.initializer:
            graph.node[0].input[1] = "image"
        made = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
        onnx.helper.set_model_props(made, about)
        onnx.save(made, workplace / "other.onnx")

    def domains(**changes):
        return json.dumps(plain({"A": PICTURES._replace(**changes), "B": PICTURES}))

    good = dict(direction="AtoB", io="float", multiple="4", min_size="8", domains=domains())
    model(**good)
    assert OnnxModel("other.onnx").translate("A", torch.ones(1, 3, 8, 8))[0].unique().tolist() == [2]
    assert "does not exist" in refused("test", "--onnx=none.onnx")
    assert "not a file of export.py" in refused("test", "--onnx=text.onnx")
    bads = dict(elsewhere=1), dict(multiple="1000000"), dict(direction="/etc"), dict(domains="[1]"), dict(io="")
    for bad in bads:
        model(**{**good, **bad})
        assert "not a file of export.py" in refused("test", "--onnx=other.onnx")
    model(**good | dict(domains=domains(channels=1)))
    assert "ONNX Runtime fails" in refused("test", "--onnx=other.onnx", "--dataset_name=tiny", "--n_cpu=0")


@pytest.mark.parametrize("place", [".ssh/key", "./.ssh/../.ssh/key", "../{name}/.ssh/key", "{folder}/.ssh/key"])
def test_a_file_of_another_sees_no_file_beside_it(workplace, place):
    onnx = pytest.importorskip("onnx")
    (workplace / ".ssh").mkdir()
    (workplace / ".ssh/key").write_bytes(bytes(range(1, 193)))
    weight = onnx.TensorProto(name="w", data_type=2, dims=[1, 8, 8, 3], data_location=onnx.TensorProto.EXTERNAL)
    place = place.format(name=workplace.name, folder=workplace)
    for name, value in (("location", place), ("offset", "0"), ("length", "192")):
        weight.external_data.add(key=name, value=value)
    image, made = (onnx.helper.make_tensor_value_info(name, 2, ["N", "H", "W", 3]) for name in ("image", "translation"))
    node = onnx.helper.make_node("BitwiseOr", ["image", "w"], ["translation"])
    graph = onnx.helper.make_graph([node], "g", [image], [made], [weight])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
    about = dict(direction="AtoB", io="uint8", multiple="4", min_size="8")
    onnx.helper.set_model_props(model, about | {"domains": json.dumps(plain({"A": PICTURES, "B": PICTURES}))})
    (workplace / "other.onnx").write_bytes(model.SerializeToString())
    if place == ".ssh/key":
        reading = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        assert reading.run(None, {"image": np.zeros((1, 8, 8, 3), np.uint8)})[0].max() == 192  # so it would have been
    with pytest.raises(UserError, match="not a file of export.py"):
        OnnxModel("other.onnx")


def test_a_file_that_makes_other_images_than_it_says_is_refused(workplace, refused):
    onnx = pytest.importorskip("onnx")
    image, made = (
        onnx.helper.make_tensor_value_info(name, 1, ["N", c, "H", "W"])
        for name, c in zip(("image", "translation"), (3, 6), strict=True)
    )
    node = onnx.helper.make_node("Concat", ["image", "image"], ["translation"], axis=1)
    graph = onnx.helper.make_graph([node], "g", [image], [made])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
    about = dict(direction="AtoB", io="float", multiple="4", min_size="8")
    onnx.helper.set_model_props(model, about | {"domains": json.dumps(plain({"A": PICTURES, "B": PICTURES}))})
    (workplace / "other.onnx").write_bytes(model.SerializeToString())
    flags = ["test", "--onnx=other.onnx", "--dataset_name=tiny", "--n_cpu=0"]
    assert "not a file of export.py" in refused(*flags)
    assert "--epoch needs the networks of a checkpoint" in refused(*flags, "--epoch=3")
    assert "--amp needs the networks of a checkpoint" in refused(*flags, "--amp=bf16")


@pytest.mark.parametrize("missing", ["onnx", "onnxscript", "onnxruntime"])
def test_what_to_install(missing, workplace, run, refused, monkeypatch):
    from runtime import libraries

    assert run("cycle_gan", *TINY, "--n_epochs=1").code == 0
    found = libraries.importlib.import_module

    def some(name):
        if name == missing:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return found(name)

    monkeypatch.setattr("importlib.import_module", some)
    assert f"needs {missing}; install it: pip install -r requirements-export.txt" in refused(
        "export", "--dataset_name=tiny"
    )


def test_a_library_that_cannot_be_loaded_is_named_with_the_reason(tmp_path, monkeypatch):
    (tmp_path / "broken_one.py").write_text("raise ImportError('libfoo.so.3: cannot open shared object file')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match="this needs broken_one, which cannot be loaded: libfoo.so.3: .*; install it"):
        library("broken_one", "this", "requirements-export.txt")


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["export", "--examples=4"], "--examples is of the page that --web writes"),
        (["export", "--ort=https://here"], "--ort is of the page"),
        (["export", "--format=pytorch-cyclegan", "--half"], "--half goes with --format onnx"),
        (["evaluate", "--range", "0", "4095"], "--range goes with --real and --fake"),
        (["evaluate", "--pages=images"], "--pages goes with --real and --fake"),
        (["evaluate", "--real=a", "--fake=b", "--epoch=7"], "--epoch is of a model, not of two folders"),
        (["evaluate", "--real=a", "--fake=b", "--dataset_name=c"], "--dataset_name is of a model, not of two folders"),
    ],
)
def test_flags_of_something_else(refused, flags, told):
    assert told in refused(*flags)


def test_flags_that_do_not_go_together(refused):
    assert "--io uint8" in refused("export", "--web", "--io=float")


def test_a_page_is_for_pictures_and_says_what_is_for_others():
    deep = PICTURES._replace(channels=5, picture=False, dtype="float32", suffix=".tif")
    about = {"domains": json.dumps({"A": deep._asdict(), "B": PICTURES._asdict()})}
    for flags, said in (["--web"], "a page is for 8-bit pictures; leave --web out, and add --io float, which"), (
        [], "--io uint8 is for 8-bit pictures; export with --io float, which"
    ):  # fmt: skip
        with pytest.raises(UserError, match=said):
            onnx_export.encode(None, "AtoB", about, parse_export(flags))


@pytest.mark.parametrize(("direction", "expected"), [("AtoB", ("1", "3")), ("BtoA", ("3", "1"))])
def test_a_file_says_how_many_channels_go_in_and_come_out(direction, expected):
    translators = translators_of(["--recipe=lsgan", "--channels_A=1", "--channels_B=3"])
    about = onnx_export.facts(Namespace(words=""), translators, direction, parse_export([]))
    assert (about["channels_in"], about["channels_out"]) == expected
