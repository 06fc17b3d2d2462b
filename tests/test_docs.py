"""What the documents say of the program is so: flags, commands, links, version."""

import re
import runpy
import shlex

import pytest
from conftest import ROOT

import options

PATHS = {path.name: path for folder in (ROOT, ROOT / "docs") for path in folder.glob("*.md")}
DOCUMENTS = {name: path.read_text(encoding="utf-8") for name, path in PATHS.items()}
PARSERS = {
    "cycle_gan.py": options.parse_training,
    "test.py": options.parse_translation,
    "evaluate.py": options.parse_evaluation,
    "import_weights.py": options.parse_import,
    "export.py": options.parse_export,
    "app.py": options.parse_app,
}


def test_the_page_of_flags_is_current():
    """If not: python docs/flags.py."""
    assert DOCUMENTS["flags.md"] == runpy.run_path(str(ROOT / "docs" / "flags.py"))["page"]()


def code(text):
    """Every line of the fenced blocks of a document, and every span of code in its prose."""
    for i, part in enumerate(text.split("```")):
        yield from part.splitlines() if i % 2 else (" ".join(span.split()) for span in re.findall("`([^`]+)`", part))


def commands(text):
    """The commands in a document that can be read as they stand, as (program, words)."""
    for line in code(text.replace("\\\n", " ")):
        line = line.split(" #")[0]
        if found := re.search(r"(?:python |nproc_per_node 2 )(\w+\.py)( .*)?$", line):
            if found[1] in PARSERS and not re.search("[…<&]", line):
                yield found[1], shlex.split(found[2] or "")
        elif found := re.search(r"(?:^| )-- (--.+)", line):  # of benchmarks/experiment.py
            yield "cycle_gan.py", shlex.split(found[1])


@pytest.mark.parametrize("name", sorted(DOCUMENTS.keys() - {"extending.md"}))  # whose flags are yet to be added
def test_commands_in_the_documents_are_understood(name):
    for program, words in commands(DOCUMENTS[name]):
        PARSERS[program](words)


def with_imports(script):
    """The text of a benchmark, and of those that it imports from."""
    own = (ROOT / "benchmarks" / script).read_text(encoding="utf-8")
    others = [ROOT / "benchmarks" / f"{name}.py" for name in re.findall(r"^from (\w+) import", own, re.MULTILINE)]
    return own + "".join(path.read_text(encoding="utf-8") for path in others if path.exists())


def test_flags_of_benchmarks_in_the_documents_exist():
    found = []
    for text in DOCUMENTS.values():
        for line in code(text.replace("\\\n", " ")):
            for script, words in re.findall(r"python benchmarks/(\w+\.py)(.*)", line.split(" -- ")[0]):
                own = with_imports(script)
                flags = re.findall(r"--\w+", re.sub('"[^"]*"', "", words))  # what is quoted names a run
                assert all(f'"{flag}"' in own for flag in flags), (script, flags)
                found += flags
    assert len(found) > 40


def test_commands_are_found():
    assert (
        len(list(commands(DOCUMENTS["README.md"]))) >= 9 and len(list(commands(DOCUMENTS["experiment-tables.md"]))) > 50
    )


@pytest.mark.parametrize("name", ["README.md", "data.md", "errors.md", "how-it-works.md", "training.md"])
def test_flags_in_the_documents_exist(name):
    named = re.findall(r"`--(\w+)", DOCUMENTS[name])
    assert len(named) > 3
    for flag in named:
        assert f"`--{flag}`" in DOCUMENTS["flags.md"] or flag == "help", flag


def anchors(text):
    """The addresses of a document's headings."""
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in re.findall("^#+ (.+)$", text, re.M)}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_lead_somewhere(name):
    for link in re.findall(r"\]\(([^)\s]+)\)", DOCUMENTS[name]):
        if not link.startswith("http"):
            path, _, anchor = link.partition("#")
            target = PATHS[name].parent / path if path else PATHS[name]
            assert target.exists(), link
            assert not anchor or anchor in anchors(target.read_text(encoding="utf-8")), link


def test_one_version_everywhere():
    released = re.search(r"^## \[([\d.]+)\] - ([\d-]+)$", DOCUMENTS["CHANGELOG.md"], re.M)
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.search(r"^version: (\S+)$", citation, re.M)[1] == released[1] == options.__version__
    assert re.search(r'^date-released: "(\S+)"$', citation, re.M)[1] == released[2]
