"""Several runs on one data set, each with a ``--name`` of its own."""

import os
from pathlib import Path

from conftest import TINY

from options import parse_export, parse_training, parse_translation
from reporting.texts import command


def runs_in(folder):
    return sorted(path.name for path in Path(folder).iterdir() if path.is_dir())


def test_two_runs_on_one_data_set_keep_apart_through_all_programs(workplace, run):
    first = run("cycle_gan", *TINY, "--n_epochs=1")
    second = run("cycle_gan", *TINY, "--n_epochs=1", "--name=wide", "--ngf=8")
    assert (first.code, second.code) == (0, 0) and "earlier run" not in second.out
    assert "python test.py --dataset_name tiny --name wide" in second.out
    for folder in ("saved_models", "images"):
        assert runs_in(folder) == ["tiny", "wide"]
    wide = "--dataset_name=tiny", "--name=wide"
    result = run("cycle_gan", *wide, "--epoch=latest", "--n_epochs=2")
    assert result.code == 0 and "resuming after epoch 1" in result.out
    assert run("test", *wide, "--n_cpu=0").code == 0
    assert run("evaluate", *wide, "--features=efficientnet_lite0").code == 0
    assert run("export", *wide).code == 0
    assert runs_in("results/wide/epoch_2") == ["AtoB", "BtoA"]
    assert runs_in("results") == runs_in("exports") == ["wide"]


def test_a_name_is_the_data_sets_unless_given_and_the_other_way_round():
    for parse in (lambda words: parse_training(words)[0], parse_translation, parse_export):
        for words, expected in (
            (["--dataset_name=horses"], ("horses", "horses")),
            (["--dataset_name=horses", "--name=wide"], ("horses", "wide")),
            (["--name=wide"], ("wide", "wide")),  # not the default set, which would be fetched
        ):
            options = parse(words)
            assert (options.dataset_name, options.name) == expected


def test_a_printed_command_has_the_name_where_it_differs():
    options = parse_training(["--dataset_name=horses", "--name=wide"])[0]
    assert command("cycle_gan.py", options) == "python cycle_gan.py --dataset_name horses --name wide"


def test_the_name_is_the_command_lines_and_not_the_checkpoints(workplace, run, refused):
    assert run("cycle_gan", *TINY, "--n_epochs=1", "--name=wide").code == 0
    os.rename(workplace / "saved_models/wide", workplace / "saved_models/moved")
    moved = "--dataset_name=tiny", "--name=moved"
    assert run("cycle_gan", *moved, "--epoch=latest", "--n_epochs=2").code == 0
    assert runs_in("saved_models") == ["moved"]
    line = refused("test", "--name=moved")
    assert "there is no data set datasets/moved" in line and line.endswith("name its data set by --dataset_name")
    assert run("test", "--name=moved", "--input=datasets/tiny/testA", "--output=out", "--direction=AtoB").code == 0
    beside = "--dataset_name=tiny", "--checkpoint=saved_models/moved/epoch_1.pth", "--features=efficientnet_lite0"
    assert run("evaluate", *beside).code == 0 and runs_in("results") == ["moved"]  # its numbers are not the set's
    assert "must be a name, not 'a/b'" in refused("cycle_gan", *TINY, "--name=a/b")
    sides = "--real=datasets/tiny/testA", "--fake=out"
    assert "is of a model, not of two folders" in refused("evaluate", *sides, "--name=moved")
