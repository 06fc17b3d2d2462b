"""Weights of pytorch-CycleGAN-and-pix2pix come in and go out: the same translations, whatever their shape; nothing else
comes in, and a new run starts from what did."""

import http.server
import json
import pickle
import re
import threading
import zipfile
from argparse import Namespace
from pathlib import Path

import pytest
import torch
from conftest import TINY, make_dataset, noise_image
from PIL import Image
from torch import nn

import translators
from critics import build_critic
from inference.pytorch_cyclegan import read_pytorch_cyclegan
from models import build_generator
from options import parse_training
from resuming import start_from
from runtime import checkpoints, download
from runtime.errors import UserError
from runtime.weights import load_tensors
from trainer import CycleGAN

# ---------------------------------------------------------------------------------------------------------------------
# The other program's networks, rebuilt from the appendix of https://arxiv.org/abs/1703.10593: c7s1-64, d128, d256, nine
# or six R256, u128, u64, c7s1-3; and C64-C128-C256-C512. Paddings are layers, which decides how layers are numbered.
# ---------------------------------------------------------------------------------------------------------------------

NORMS = {"instance": nn.InstanceNorm2d, "batch": nn.BatchNorm2d}


class Residual(nn.Module):
    def __init__(self, width, norm, dropout):
        super().__init__()

        def half():
            return nn.ReflectionPad2d(1), nn.Conv2d(width, width, 3, bias=norm == "instance"), NORMS[norm](width)

        middle = [nn.ReLU(), nn.Dropout(0.5)] if dropout else [nn.ReLU()]
        self.conv_block = nn.Sequential(*half(), *middle, *half())

    def forward(self, x):
        return x + self.conv_block(x)


class Network(nn.Module):
    def __init__(self, *layers):
        super().__init__()
        self.model = nn.Sequential(*layers)

    def forward(self, x):
        return self.model(x)


def generator(ngf=4, blocks=9, norm="instance", dropout=False, channels=3, channels_out=None, transposed=True):
    bias, widths = norm == "instance", [ngf, 2 * ngf, 4 * ngf]

    def c7s1(a, b, **more):
        return nn.ReflectionPad2d(3), nn.Conv2d(a, b, 7, **more)

    def u(a, b):
        if transposed:
            return nn.ConvTranspose2d(a, b, 3, 2, padding=1, output_padding=1, bias=bias)
        return nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(a, b, 3, padding=1))

    layers = [*c7s1(channels, ngf, bias=bias), NORMS[norm](ngf), nn.ReLU()]
    for a, b in zip(widths, widths[1:], strict=False):
        layers += [nn.Conv2d(a, b, 3, 2, padding=1, bias=bias), NORMS[norm](b), nn.ReLU()]
    layers += [Residual(4 * ngf, norm, dropout) for _ in range(blocks)]
    for a, b in zip(widths[::-1], widths[1::-1], strict=False):
        layers += [u(a, b), NORMS[norm](b), nn.ReLU()]
    return randomised(Network(*layers, *c7s1(ngf, channels_out or channels), nn.Tanh()))


def critic(ndf=4, norm="instance"):
    bias, widths = norm == "instance", [ndf, 2 * ndf, 4 * ndf, 8 * ndf]
    layers = [nn.Conv2d(3, ndf, 4, 2, padding=1), nn.LeakyReLU(0.2)]
    for a, b, stride in zip(widths, widths[1:], (2, 2, 1), strict=False):
        layers += [nn.Conv2d(a, b, 4, stride, padding=1, bias=bias), NORMS[norm](b), nn.LeakyReLU(0.2)]
    return randomised(Network(*layers, nn.Conv2d(8 * ndf, 1, 4, padding=1)))


def randomised(network):
    """Every number of it drawn at random, so that none may be lost."""
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 2)
            elif tensor.is_floating_point():
                tensor.normal_(0, 0.2)
    return network.eval()


def save(network, path, **how):
    state = network if isinstance(network, dict) else network.state_dict()
    torch.save(state, path, **how)
    return path


def images(size=(2, 3, 32, 40)):
    return torch.rand(size) * 2 - 1


@torch.no_grad()
def difference(theirs, ours, x):
    """The largest one. In float64: the two compute norms by other kernels, whose rounding is not what is tested."""
    return (theirs.double()(x.double()) - ours.double()(x.double())).abs().max()


def options_of(imported):
    return translators.Namespace(**imported.options)


SHAPES = [
    dict(blocks=9),
    dict(blocks=6),
    dict(blocks=6, dropout=True),
    dict(blocks=9, norm="batch"),
    dict(blocks=6, norm="batch", dropout=True),
    dict(blocks=6, ngf=6, channels=1),
]


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


# ---------------------------------------------------------------------------------------------------------------------
# In and out
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_generator_translates_here_as_there(shape, tmp_path):
    theirs = generator(**shape)
    imported = read_pytorch_cyclegan(save(theirs, tmp_path / "latest_net_G_A.pth"))
    assert imported.kind == "generator"
    found = {name: imported.options[name] for name in ("ngf", "n_residual_blocks", "norm", "dropout", "channels_A")}
    names = {"blocks": "n_residual_blocks", "channels": "channels_A"}
    told = {names.get(name, name): value for name, value in shape.items()}
    assert found == dict(ngf=4, norm="instance", dropout=False, channels_A=3) | told
    assert imported.options["channels_B"] == found["channels_A"]
    ours = build_generator(options_of(imported)).eval()
    ours.load_state_dict(imported.state)
    x = images((2, found["channels_A"], 32, 40))
    assert difference(theirs, ours, x) < 2e-6
    assert theirs(x.double()).std() > 0.05  # not everything is gray


@pytest.mark.parametrize("blocks", [6, 9])
def test_in_float32_and_with_weights_as_they_are_initialised_too(blocks, tmp_path):
    theirs = generator(blocks=blocks)
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, 0, 0.02)
    imported = read_pytorch_cyclegan(save(theirs, tmp_path / "latest_net_G_A.pth"))
    ours = build_generator(options_of(imported)).eval()
    ours.load_state_dict(imported.state)
    with torch.no_grad():
        x = images()
        assert (theirs(x) - ours(x)).abs().max() < 2e-6


@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_a_critic_scores_here_as_there(norm, tmp_path):
    theirs = critic(norm=norm)
    imported = read_pytorch_cyclegan(save(theirs, tmp_path / "latest_net_D_A.pth"))
    assert (imported.kind, imported.options["ndf"], imported.options["norm"]) == ("critic", 4, norm)
    ours = build_critic(options_of(imported)).eval()
    ours.load_state_dict(imported.state)
    assert difference(theirs, ours, images((2, 3, 48, 40))) < 2e-6


def test_old_files_and_those_of_several_gpus_are_the_same(tmp_path):
    state = generator(blocks=6).state_dict()
    plain = read_pytorch_cyclegan(save(state, tmp_path / "plain.pth"))
    old = {f"module.{name}": tensor for name, tensor in state.items()}
    for norm in ("model.2", "model.10.conv_block.2", "model.10.conv_block.6"):
        old |= {f"module.{norm}.running_mean": torch.ones(4), f"module.{norm}.num_batches_tracked": torch.tensor(7)}
    again = read_pytorch_cyclegan(save(old, tmp_path / "old.pth", _use_new_zipfile_serialization=False))
    assert again.options == plain.options
    assert all(torch.equal(again.state[name], plain.state[name]) for name in plain.state)

    batch = generator(blocks=6, norm="batch").state_dict()
    before_041 = {name: tensor for name, tensor in batch.items() if "num_batches" not in name}
    assert read_pytorch_cyclegan(save(before_041, tmp_path / "before.pth")).options["norm"] == "batch"


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_what_goes_out_translates_there_as_here(shape, tmp_path, run, monkeypatch):
    monkeypatch.chdir(tmp_path)
    theirs = {name: generator(**shape) for name in ("latest_net_G_A.pth", "latest_net_G_B.pth")}
    files = [save(network, tmp_path / name) for name, network in theirs.items()]
    assert run("import_weights", *files, "--name", "mine").code == 0
    _, state = checkpoints.find("saved_models/mine")
    with torch.no_grad():
        for name in list(state["generators"]):  # as training would: a batch norm follows a bias that is not 0
            if name.endswith("encoder.0.bias"):
                state["generators"][name] += 0.3
    checkpoints.write(Path("saved_models/mine/epoch_0.pth"), state)
    out = run("export", "--dataset_name=mine", "--format=pytorch-cyclegan").out
    assert ("--eval" in out) == (shape.get("norm") == "batch" or shape.get("dropout", False))
    assert f"resnet_{shape['blocks']}blocks" in out and ("--no_dropout" in out) == (not shape.get("dropout"))
    assert "test.py --model test --model_suffix _A" in out and "--model test --model_suffix _B" in out
    paths = [tmp_path / "exports/mine" / name for name in theirs]
    ours = translators.load_translators(state, torch.device("cpu"))
    x = images((2, shape.get("channels", 3), 32, 40))
    for path, direction in zip(paths, "AB", strict=True):
        again = generator(**shape)
        again.load_state_dict(torch.load(path, weights_only=True))  # strict: every name, and no other
        assert difference(again.eval(), ours.generator(direction), x) < 2e-6


def test_what_has_no_counterpart_there_does_not_go_out(workplace, run, refused):
    assert run("cycle_gan", *TINY, "--n_epochs=1", "--sample_interval=0").code == 0
    _, state = checkpoints.find("saved_models/tiny")
    for changes, reason in [
        ({}, "like --gen_net attention"),
        ({"gen_net": "resnet"}, "with self-attention"),
        ({"gen_net": "resnet", "attention": False, "mask": "learned"}, "with --mask learned"),
        ({"gen_net": "resnet", "attention": False, "norm": "none"}, "with --norm none"),
        ({"gen_net": "resnet", "attention": False}, "of 1 residual blocks, only of 6 and 9"),
    ]:
        options = Namespace(**{**state["options"], **changes})
        generators = translators.Translators(options).state_dict()
        checkpoints.write(
            Path("saved_models/tiny/epoch_1.pth"), {**state, "options": vars(options), "generators": generators}
        )
        assert reason in refused("export", "--dataset_name=tiny", "--format=pytorch-cyclegan")
    assert not list((workplace / "exports").rglob("*.pth"))


# ---------------------------------------------------------------------------------------------------------------------
# What does not come in
# ---------------------------------------------------------------------------------------------------------------------


class Trap:
    def __reduce__(self):
        return (Path.touch, (Path("trapped"),))


def changed(**changes):
    """A generator's state_dict with tensors replaced, or added, or taken away (None)."""
    state = {**generator(blocks=6).state_dict(), **{name.replace("__", "."): value for name, value in changes.items()}}
    return {name: tensor for name, tensor in state.items() if tensor is not None}


def unet():
    return {"model.model.0.weight": torch.zeros(4, 3, 4, 4), "model.model.1.model.1.weight": torch.zeros(8, 4, 4, 4)}


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (lambda: changed(model__6__filt=torch.ones(8, 1, 3, 3)), "blur-pool layers of CUT"),
        (unet, "neither a ResNet generator nor a 70×70 critic"),
        (lambda: {}, "neither a ResNet generator"),
        (lambda: generator(transposed=False).state_dict(), "no place in a network of that kind"),
        (lambda: changed(model__16__weight=torch.ones(8, 16, 3, 3)), "8×16×3×3.*16×8×3×3.*not a transposed one"),
        (lambda: changed(model__4__weight=torch.ones(8, 5, 3, 3)), "model.4.weight is 8×5×3×3, where 8×4×3×3"),
        (lambda: changed(model__23__weight=None), "nothing for decoder.6.weight"),
        (lambda: changed(model__99__weight=torch.ones(3)), "it has model.99.weight, which has no place"),
        (lambda: generator(channels=4).state_dict(), "4 channels"),
        (lambda: changed(model__1__bias=torch.full((4,), torch.nan)), "values that are not finite"),
        (lambda: changed(model__1__bias=torch.zeros(4, dtype=torch.int32)), "no state_dict of floating-point tensors"),
        (lambda: changed(model__1__bias=torch.zeros(4).to_sparse()), "not a file of weights alone"),
        (lambda: changed(model__1__weight=torch.ones(1).expand(10**9, 3, 7, 7)), "unpack to more than it holds"),
        (lambda: dict.fromkeys(["model.1.weight", "model.1.bias"], torch.ones(2**18)), "unpack to more than it holds"),
        (lambda: {"state_dict": changed()}, "no state_dict of floating-point tensors"),
        (lambda: [1, 2], "no state_dict of floating-point tensors"),
        (lambda: {"model.1.weight": Trap()}, "not a file of weights alone"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.parametrize("zipped", [True, False])
def test_other_weights_are_refused_in_one_line(state, reason, zipped, tmp_path, refused, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(state(), "G.pth", _use_new_zipfile_serialization=zipped)
    line = refused("import_weights", "G.pth", "--name", "mine")
    assert "G.pth" in line
    with pytest.raises(UserError, match=reason):
        read_pytorch_cyclegan("G.pth")
    assert not Path("trapped").exists() and not Path("saved_models/mine").exists()


def test_broken_files_are_refused_in_one_line(tmp_path, refused, monkeypatch):
    monkeypatch.chdir(tmp_path)
    whole = save(generator(blocks=6), tmp_path / "whole.pth").read_bytes()
    old = save(generator(blocks=6), tmp_path / "old.pth", _use_new_zipfile_serialization=False).read_bytes()
    huge = old.replace(pickle.dumps(4 * 3 * 49, 2)[2:-1], pickle.dumps(2**31 - 1, 2)[2:-1])
    assert huge != old
    for name, content in {
        "empty.pth": b"",
        "page.pth": b"<html>404</html>",
        "cut.pth": whole[: len(whole) // 2],
        "old_cut.pth": old[: len(old) // 2],
        "huge.pth": huge,
        "code.pth": pickle.dumps(Trap()),
    }.items():
        Path(name).write_bytes(content)
        assert name in refused("import_weights", name, "--name", "mine")
    with zipfile.ZipFile("whole.pth") as source, zipfile.ZipFile("bomb.pth", "w", zipfile.ZIP_DEFLATED) as bomb:
        for member in source.infolist():
            bomb.writestr(member.filename, b"\0" * 10**6 if "/data/" in member.filename else source.read(member))
    assert "would unpack to more than it holds" in refused("import_weights", "bomb.pth", "--name", "mine")
    monkeypatch.setattr("runtime.weights.LARGEST", 1000)
    assert "more than any generator" in refused("import_weights", "whole.pth", "--name", "mine")
    assert "missing.pth" in refused("import_weights", "missing.pth", "--name", "mine")
    assert not Path("trapped").exists() and not Path("saved_models").exists()


def test_half_precision_comes_in_as_float32(tmp_path):
    state = {name: tensor.half() for name, tensor in generator(blocks=6).state_dict().items()}
    imported = read_pytorch_cyclegan(save(state, tmp_path / "half.pth"))
    assert {tensor.dtype for tensor in imported.state.values()} == {torch.float32}
    assert load_tensors(tmp_path / "half.pth")["model.1.weight"].dtype == torch.float16


# ---------------------------------------------------------------------------------------------------------------------
# As a user would
# ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def files(workplace):
    """Both generators and both critics as the other program saves them, in a folder of theirs."""
    (workplace / "theirs").mkdir()
    networks = dict(G_A=generator(blocks=6), G_B=generator(blocks=6), D_A=critic(), D_B=critic())
    return {name: save(network, workplace / f"theirs/latest_net_{name}.pth") for name, network in networks.items()}


def test_import_then_translate_and_measure(files, workplace, run):
    result = run("import_weights", *files.values(), "--name", "tiny")  # as a shell expands latest_net_*.pth
    assert result.code == 0 and "python test.py --dataset_name tiny" in result.out
    assert "--ngf 4, 6 residual blocks, instance norm, no dropout" in result.out
    _, state = checkpoints.find("saved_models/tiny")
    assert state["imported"]["D_B"]["file"] == "latest_net_D_A.pth"  # their D_A judges images of B
    assert torch.equal(state["critics"]["D_B"]["model.0.weight"], torch.load(files["D_A"])["model.0.weight"])

    assert run("test", "--dataset_name", "tiny", "--n_cpu=0").code == 0
    theirs = generator(blocks=6)
    theirs.load_state_dict(torch.load(files["G_B"]))
    picture = noise_image(30, 16, 24)
    picture.save(workplace / "one.png")
    flags = ["--dataset_name=tiny", "--n_cpu=0", "--input=one.png", "--output=out", "--direction=BtoA"]
    assert run("test", *flags).code == 0
    x = torch.tensor(list(picture.tobytes())).view(16, 24, 3).permute(2, 0, 1)[None] / 127.5 - 1
    expected = theirs(x)[0].add(1).mul(127.5).round().permute(1, 2, 0).detach()
    made = torch.tensor(list(Image.open("out/one.png").tobytes())).view(16, 24, 3)
    assert (made - expected).abs().max() <= 1

    assert run("import_weights", *files.values(), "--name", "tiny").code == 0
    assert Path("saved_models/tiny.1/epoch_0.pth").exists()  # nothing is overwritten


@pytest.mark.parametrize("direction", ["AtoB", "BtoA"])
def test_a_run_of_the_other_direction_there_has_its_networks_exchanged(files, run, direction):
    assert run("import_weights", *files.values(), "--name", "mine", f"--direction={direction}").code == 0
    imported = checkpoints.find("saved_models/mine")[1]["imported"]
    found = {name: source["file"].removeprefix("latest_net_")[:3] for name, source in imported.items()}
    expected = {"G_AB": "G_A", "G_BA": "G_B", "D_A": "D_B", "D_B": "D_A"}
    exchanged = {"G_BA": "G_A", "G_AB": "G_B", "D_A": "D_A", "D_B": "D_B"}
    assert found == (expected if direction == "AtoB" else exchanged)


def test_sides_of_unlike_channels_come_in_and_go_out(workplace, run, refused):
    both = generator(blocks=6, channels=1, channels_out=3), generator(blocks=6, channels=3, channels_out=1)
    files = [save(network, f"latest_net_G_{side}.pth") for network, side in zip(both, "AB", strict=True)]
    result = run("import_weights", *files, "--name=mine")
    assert result.code == 0 and "1 channel in A, 3 in B" in result.out
    state = checkpoints.find("saved_models/mine")[1]
    ours = translators.load_translators(state, torch.device("cpu"))
    for theirs, side, channels in zip(both, "AB", (1, 3), strict=True):
        assert difference(theirs, ours.generator(side), images((2, channels, 32, 40))) < 2e-6
    assert [state["domains"][side]["channels"] for side in "AB"] == [1, 3]
    sent = run("export", "--dataset_name=mine", "--format=pytorch-cyclegan")
    assert sent.code == 0
    for direction, channels in (("AtoB", "--input_nc 1 --output_nc 3"), ("BtoA", "--input_nc 3 --output_nc 1")):
        (line,) = (line for line in sent.out.splitlines() if direction in line)
        assert f"--ngf 4 --norm instance {channels} " in line
    again = [f"exports/mine/latest_net_G_{side}.pth" for side in "AB"]
    assert run("import_weights", again[0], "--name=again").code == 0
    assert run("import_weights", again[1], "--name=other", "--direction=AtoB").code == 0  # it is named B: from B to A
    assert [checkpoints.find("saved_models/other")[1]["options"][f"channels_{side}"] for side in "AB"] == [1, 3]
    critic_of_colours = save(critic(), "latest_net_D_B.pth")  # their D_B judges images of A
    assert "has --channels_A 3, and latest_net_G_A.pth 1" in refused(
        "import_weights", *files, critic_of_colours, "--name=x"
    )
    begun = run("cycle_gan", *NEW, "--img_height=32", "--img_width=32", "--init_from=saved_models/mine", "--lr=0")
    assert begun.code == 0, begun.err


def test_one_direction_alone(files, workplace, run, refused, monkeypatch):
    assert run("import_weights", files["G_B"], "--name", "tiny").code == 0
    _, state = checkpoints.find("saved_models/tiny")
    assert all(name.startswith("G_BA.") for name in state["generators"])
    result = run("test", "--dataset_name", "tiny", "--n_cpu=0")
    assert result.code == 0 and [path.name for path in Path("results/tiny/epoch_0").iterdir() if path.is_dir()] == [
        "BtoA"
    ]
    assert run("test", "--dataset_name=tiny", "--n_cpu=0", "--input=datasets/tiny/testB", "--output=out").code == 0
    assert "no generator for AtoB, only for BtoA" in refused("test", "--dataset_name=tiny", "--direction=AtoB")

    monkeypatch.setattr("reporting.metrics.build_features", lambda name, device: Mean())
    make_dataset(workplace / "datasets/more", ("testA", "testB"), count=6)
    Path("saved_models/more").symlink_to("tiny")
    result = run("evaluate", "--dataset_name=more", "--json=numbers.json")
    assert result.code == 0, result.err
    numbers = json.loads(Path("numbers.json").read_text())["numbers"]
    assert list(numbers) == ["BtoA"] and "cycle L1" not in numbers["BtoA"] and "PSNR" in numbers["BtoA"]
    assert "no generator for AtoB" in refused("evaluate", "--dataset_name=more", "--direction=AtoB")

    assert run("import_weights", files["G_A"], "--name", "tiny").code == 0
    assert run("test", "--dataset_name=tiny", "--n_cpu=0", "--input=datasets/tiny/testA", "--output=out").code == 0
    save(generator(blocks=6), "unnamed.pth")
    assert run("import_weights", "unnamed.pth", "--direction=BtoA", "--name", "tiny").code == 0
    assert "G_BA.encoder.0.weight" in checkpoints.find("saved_models/tiny")[1]["generators"]


class Mean(nn.Module):
    """Features for the metrics that need no weights: three of them."""

    width = 3

    def forward(self, images):
        return images.float().mean((2, 3)) / 255


def test_files_that_do_not_belong_together(files, refused, run):
    def line(*words):
        return refused("import_weights", *words)

    assert "--name is missing" in line(files["G_A"])
    assert "name files" in line() and "not both" in line(files["G_A"], "--pretrained", "maps")
    assert "--pretrained_url goes with --pretrained" in line(files["G_A"], "--name=x", "--pretrained_url=http://a.b")
    assert "--direction goes with files" in line("--pretrained=maps", "--direction=BtoA")
    assert "no generator among the files" in line(files["D_A"], "--name", "mine")
    assert "is a critic" in line(Path(files["D_A"]).rename("latest_net_G_A.pth"), "--name", "mine")
    more = save(generator(blocks=9), "G9.pth"), save(generator(blocks=6), "G6.pth"), save(generator(), "third.pth")
    assert "--n_residual_blocks" in line(*more[:2], "--name", "mine")
    assert "third.pth is one generator too many" in line(*more, "--name", "mine")
    Path("other").mkdir()
    twice = save(generator(blocks=6), "other/100_net_G_B.pth")
    assert "are both net_G_B" in line(files["G_B"], twice, "--name", "mine")
    assert not Path("saved_models/mine").exists()


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        content = self.server.files.get(self.path.strip("/"))
        start = int((self.headers.get("Range") or "bytes=0-")[6:-1])
        if content is None or start >= len(content):
            return self.send_error(404 if content is None else 416)
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        self.wfile.write(content[start : start + self.server.break_after])

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.files, server.break_after = {}, 10**9
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_published_models_are_fetched_by_name(server, tmp_path, run, refused, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("monet2photo", "style_monet", "style_cezanne"):
        server.files[f"{name}.pth"] = save(generator(blocks=6), tmp_path / name).read_bytes()
    server.break_after = len(server.files["monet2photo.pth"]) // 2 + 1
    flags = ["--pretrained_url", server.url]
    result = run("import_weights", "--pretrained", "style_monet", *flags)  # a file's name stands for its pair
    assert result.code == 0, result.err
    assert [path.name for path in Path("saved_models").iterdir() if path.is_dir()] == ["monet2photo"]
    assert not list(Path("saved_models").glob("*.part"))
    _, state = checkpoints.find("saved_models/monet2photo")
    for network, name in {"G_AB": "monet2photo", "G_BA": "style_monet"}.items():
        first = torch.load(name, weights_only=True)["model.1.weight"]
        assert torch.equal(state["generators"][f"{network}.encoder.0.weight"], first)
        assert state["imported"][network]["file"] == f"{name}.pth"

    server.break_after = 10**9
    assert run("import_weights", "--pretrained", "cezanne2photo", "--name", "mine", *flags).code == 0
    assert checkpoints.find("saved_models/mine")[1]["imported"].keys() == {"G_BA"}
    assert "answers 404" in (line := refused("import_weights", "--pretrained", "maps", *flags))
    assert "--pretrained_url" in line
    server.files["iphone2dslr_flower.pth"] = b"<html>moved</html>"
    assert "not a file of weights" in refused("import_weights", "--pretrained", "iphone2dslr_flower", *flags)
    assert not list(Path("saved_models").glob("*.part"))  # else the next try would go on from it
    with pytest.raises(UserError, match="more than is believed"):
        download.download(f"{server.url}/monet2photo.pth", tmp_path / "part", largest=100)


# ---------------------------------------------------------------------------------------------------------------------
# --init_from
# ---------------------------------------------------------------------------------------------------------------------

NEW = [flag for flag in TINY if not flag.startswith(("--ngf", "--ndf", "--n_residual_blocks"))]
NEW += ["--n_epochs=1", "--checkpoint_interval=1"]


def trained(name="tiny"):
    return checkpoints.find(f"saved_models/{name}")[1]


def test_a_run_starts_from_another_run(workplace, run, refused):
    assert run("cycle_gan", *TINY, "--n_epochs=1", "--norm=layer", "--lambda_id=3").code == 0
    before = trained()
    Path("saved_models/tiny").rename("saved_models/first")
    result = run("cycle_gan", *NEW, "--init_from=saved_models/first", "--lr=0")
    assert result.code == 0, result.err
    assert "starting from the networks of saved_models/first/epoch_1.pth" in result.out
    after = trained()
    assert all(torch.allclose(after["generators"][name], tensor) for name, tensor in before["generators"].items()
               if not name.endswith(("._u", "._v")))  # fmt: skip
    critics = [state["training"]["critic_objective"]["D_A.encoder.0.bias"] for state in (before, after)]
    assert not torch.equal(*critics)
    assert after["options"] == {**before["options"], "init_from": "saved_models/first", "lr": 0.0, "lambda_id": 10.0}
    (start,) = map(json.loads, Path("saved_models/tiny/runs.jsonl").read_text().splitlines())
    assert start["from_networks_of"] == {
        "file": "saved_models/first/epoch_1.pth", "epoch": 1, "steps": 3, "data": before["data"],
    }  # fmt: skip
    assert '"init_from": "saved_models/first"' in Path("images/tiny/data.js").read_text()
    again = ["--init_from=saved_models/first/", "--epoch=latest", "--n_epochs=2"]
    assert run("cycle_gan", *NEW, *again).code == 0  # the same command, resumed

    assert "--ngf 8 contradicts the checkpoint" in refused(
        "cycle_gan", *NEW, "--init_from=saved_models/first", "--ngf=8"
    )
    assert "no checkpoint in saved_models/none" in refused("cycle_gan", *NEW, "--init_from=saved_models/none")
    (workplace / "foreign.pth").write_bytes(b"PK")
    assert "import_weights.py" in refused("cycle_gan", *NEW, "--init_from=foreign.pth")
    line = refused("cycle_gan", *NEW, "--init_from=other", "--epoch=latest")
    assert "trained with --init_from saved_models/first; " in line


def test_a_recipe_gives_way_to_the_networks_and_says_so(workplace, run):
    assert run("cycle_gan", *TINY, "--n_epochs=1").code == 0
    flags = "--dataset_name=tiny", "--init_from=saved_models/tiny", "--n_epochs=1", "--n_cpu=0"
    sizes = "--img_height=32", "--img_width=32"
    result = run("cycle_gan", *flags, *sizes, "--name=masked", "--recipe=segmentation")
    assert re.search("--recipe segmentation, but .*--gen_net attention --mask none: the networks are", result.out)
    assert trained("masked")["options"]["mask"] == "none"
    result = run("cycle_gan", *flags, *sizes, "--name=same")
    assert result.code == 0 and ", but" not in result.out


def test_the_averaged_generators_start_from_those_of_the_checkpoint_too():
    options = parse_training([*TINY, "--recipe=lsgan", "--dis_net=attention"])[0]
    source, begun = (CycleGAN(options, torch.device("cpu")) for _ in range(2))
    generators = source.translators.state_dict()
    begun.start_from({"generators": generators, "options": vars(options)})
    for network in (begun.translators, begun.average.module):
        assert all(torch.equal(weights, generators[name]) for name, weights in network.state_dict().items())


def test_a_recipe_given_by_hand_brings_its_critics():
    trained_with = vars(parse_training(["--recipe=lsgan"])[0])
    for flags, critics in (([], "patch70"), (["--recipe=attention"], "attention"), (["--recipe=features"], "features"),
                           (["--recipe=features", "--dis_net=patchgan"], "patchgan")):  # fmt: skip
        _, given = parse_training(["--init_from=there", *flags])
        assert start_from(given, trained_with)[0].dis_net == critics


def test_networks_of_one_channel_take_pictures_of_one_and_another_range(workplace, run, refused):
    assert run("cycle_gan", *TINY, "--n_epochs=1", "--channels=1").code == 0
    Path("saved_models/tiny").rename("saved_models/grey")
    result = run("cycle_gan", *NEW, "--init_from=saved_models/grey", "--range_A", 0, 100)
    assert result.code == 0, result.err
    assert "side B: colours are read as grey, for --channels, --channels_B or the networks of --init_from" in result.out
    state = trained()
    assert state["domains"]["A"]["channels"] == state["domains"]["B"]["channels"] == 1
    assert [state["domains"][side]["high"] for side in "AB"] == [100, 255]
    assert run("cycle_gan", *NEW, "--epoch=latest", "--n_epochs=2").code == 0
    assert "--channels 3 contradicts" in refused("cycle_gan", *NEW, "--init_from=saved_models/grey", "--channels=3")


def test_a_run_starts_from_imported_networks(files, run):
    assert run("import_weights", *files.values(), "--name", "horses").code == 0
    source = trained("horses")
    assert (
        run("cycle_gan", *NEW, "--img_height=32", "--img_width=32", "--init_from=saved_models/horses", "--lr=0").code
        == 0
    )
    state = trained()
    told = {
        "gen_net": "resnet",
        "dis_net": "patch70",
        "gan_mode": "lsgan",
        "n_residual_blocks": 6,
        "ndf": 4,
        "recipe": "classic",
    }
    assert told.items() <= state["options"].items()
    for name, tensor in source["generators"].items():
        assert torch.allclose(state["generators"][name], tensor)
    for name, tensors in source["critics"].items():
        for key, tensor in tensors.items():
            assert torch.equal(state["training"]["critic_objective"][f"{name}.{key}"], tensor)

    file = "--init_from=saved_models/horses/epoch_0.pth"
    flags = [*NEW, "--img_height=32", "--img_width=32", file, "--dis_net=patchgan", "--ndf=8"]
    assert run("cycle_gan", *flags).code == 0  # critics may be others, and then are new ones
    assert trained()["options"]["dis_net"] == "patchgan"
    assert run("import_weights", files["G_A"], "--name", "one").code == 0
    flags = ["--img_height=32", "--img_width=32", "--init_from=saved_models/one", "--lr=0"]
    assert run("cycle_gan", *NEW, *flags).code == 0  # the other direction begins anew
    first = trained("one")["generators"]["G_AB.encoder.0.weight"]
    assert torch.allclose(trained()["generators"]["G_AB.encoder.0.weight"], first)
    assert not torch.allclose(trained()["generators"]["G_BA.encoder.0.weight"], first)


# ---------------------------------------------------------------------------------------------------------------------
# From Python
# ---------------------------------------------------------------------------------------------------------------------


def test_pictures_from_python(files, workplace, run):
    assert run("import_weights", files["G_A"], "--name", "tiny").code == 0
    translate = translators.load("saved_models/tiny", device="cpu")
    assert run("test", "--dataset_name=tiny", "--n_cpu=0").code == 0
    for path in Path("datasets/tiny/testA").iterdir():
        made = translate(Image.open(path), "AtoB")
        assert made.tobytes() == Image.open(f"results/tiny/epoch_0/AtoB/{path.name}").tobytes()
    for mode in ("L", "RGBA", "P", "I;16", "CMYK", "1"):
        picture = Image.new(mode, (7, 5))
        assert (translate(picture).size, translate(picture).mode) == ((7, 5), "RGB")
    with pytest.raises(UserError, match="no generator for BtoA"):
        translate(noise_image(0), "BtoA")
    with pytest.raises(UserError, match="there is no checkpoint"):
        translators.load("saved_models/none")


def test_weights_that_contradict_their_options_are_refused(files, workplace, run, refused):
    assert run("import_weights", files["G_A"], "--name", "tiny").code == 0
    path, state = checkpoints.find("saved_models/tiny")
    state["options"]["ngf"] = 5
    checkpoints.write(path, state)
    assert "does not fit the networks of its options" in refused("test", "--dataset_name=tiny")
