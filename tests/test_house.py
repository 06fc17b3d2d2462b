"""The structure: imports run one way, every name in the registry leads somewhere, and --help needs no torch."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

import options
import registry

FILES = [
    *ROOT.glob("*.py"),
    *(path for room in ("runtime", "reporting", "inference", "readers") for path in (ROOT / room).glob("*.py")),
]
OURS = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in FILES}


def imports_of(path):
    """The modules of ours that a file imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names if name.name in OURS)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{name.name}" for name in node.names if f"{node.module}.{name.name}" in OURS)
            if node.module in OURS:
                yield node.module


def test_no_import_runs_in_a_circle():
    graph = {module: set(imports_of(path)) for module, path in OURS.items()}
    while graph:
        leaves = [module for module, needed in graph.items() if not needed & graph.keys()]
        assert leaves, f"a circle among {sorted(graph)}"
        for module in leaves:
            del graph[module]


@pytest.mark.parametrize(
    ("room", "allowed"),
    [
        ("runtime", {"runtime", "options"}),  # the options in a checkpoint pass the same table as a command line
        ("readers", {"readers", "runtime"}),
        ("reporting", {"reporting", "runtime", "registry", "datasets", "readers", "utils"}),
        (
            "inference",
            {
                "inference",
                "convolutions",
                "layers",
                "models",
                "critics",
                "translators",
                "registry",
                "datasets",
                "readers",
                "runtime",
            },
        ),
        ("models.py", {"registry", "layers", "attention", "convolutions", "spectral_norm"}),
        ("critics.py", {"registry", "layers", "models", "runtime"}),
        ("layers.py", {"registry"}),
        ("attention.py", set()),
        ("convolutions.py", {"runtime"}),
        ("spectral_norm.py", {"layers"}),
        ("muon.py", {"runtime"}),
        ("utils.py", set()),
        ("registry.py", set()),
        ("losses.py", {"layers", "registry", "spectral_norm", "translators"}),
        ("datasets.py", {"readers", "runtime"}),
        ("translators.py", {"models", "registry", "spectral_norm", "readers", "inference", "runtime"}),
        (
            "trainer.py",
            {"models", "critics", "layers", "losses", "registry", "runtime", "spectral_norm", "translators", "utils"},
        ),
        ("options.py", {"inference", "registry", "runtime"}),  # of inference the flags alone
        ("resuming.py", {"critics", "options", "registry", "reporting", "runtime", "trainer", "translators"}),
    ],
)
def test_rooms_import_what_they_may(room, allowed):
    files = [ROOT / room] if room.endswith(".py") else (ROOT / room).glob("*.py")
    for path in files:
        assert {module.split(".")[0] for module in imports_of(path)} <= allowed, path


DOORS = {  # calls that read and write files → the files of ours in which they stand
    "open": {"runtime/files.py", "runtime/distributed.py"},  # the latter opens /dev/null
    "Image.open": {"readers/pictures.py"},  # by known formats alone
    # of files that are open already, or of bytes
    "ZipFile": {"readers/archives.py", "readers/arrays.py", "runtime/download.py", "runtime/pickles.py"},
    "tarfile.open": {"readers/archives.py"},
    "torch.load": {"runtime/pickles.py"},
    "read_text": {"reporting/pages.py"},  # its own templates
    "read_bytes": {"runtime/pretrained.py"},  # an installed package's weights
    "print": {"runtime/errors.py", "evaluate.py"},  # the latter a table without names
    **dict.fromkeys(("write_text", "write_bytes", "copyfile", "rmtree"), set()),
}


@pytest.mark.parametrize("call", DOORS)
def test_files_are_read_through_one_door_and_written_in_one_way(call):
    def calls(path):
        names = (ast.unparse(node.func) for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call))
        return any(name == call or name.endswith(f".{call}") and call != "open" for name in names)

    assert {path.relative_to(ROOT).as_posix() for path in FILES if calls(path)} <= DOORS[call]


def test_options_need_nothing_of_inference_but_its_flags():
    assert {name for name in imports_of(ROOT / "options.py") if name.startswith("inference")} == {"inference.flags"}


def test_files_stay_small():
    lengths = {path.relative_to(ROOT): len(path.read_text().splitlines()) for path in FILES}
    assert max(lengths.values()) <= 400, {path: n for path, n in lengths.items() if n > 400}
    assert lengths[Path("cycle_gan.py")] <= 250


@pytest.mark.parametrize(
    "entry",
    [
        entry
        for table in vars(registry).values()
        if isinstance(table, dict)
        for entry in table.values()
        if isinstance(entry, (registry.Entry, registry.Network, registry.Penalty))
    ],
    ids=lambda entry: entry.where,
)
def test_every_entry_of_the_registry_leads_somewhere(entry):
    assert callable(registry.load(entry))


SCRIPTS = ["cycle_gan.py", "test.py", "evaluate.py", "import_weights.py", "export.py", "app.py"]


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_version_and_bad_flags_answer_without_torch(script, tmp_path):
    (tmp_path / "torch.py").write_text("raise SystemExit('torch was imported')\n")
    command = [sys.executable, ROOT / script]
    environment = {"PYTHONPATH": str(tmp_path), "PYTHONIOENCODING": "utf-8"}
    for flag, code in (("--help", 0), ("--version", 0), ("--nonsense", 2)):
        result = subprocess.run([*command, flag], env=environment, capture_output=True, text=True)
        assert result.returncode == code, result.stderr
    assert (
        options.__version__
        in subprocess.run([*command, "--version"], env=environment, capture_output=True, text=True).stdout
    )
