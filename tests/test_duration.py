"""How long a run takes: said after the first steps, set by --minutes, and counted over all of its starts."""

from argparse import Namespace
from types import SimpleNamespace

import pytest
import torch
from conftest import TINY, run_process

from options import ENDLESS, parse_training
from registry import GENERATORS
from reporting import texts
from reporting.texts import Forecast, place
from runtime import checkpoints
from runtime.device import smaller_crop
from trainer import CycleGAN
from utils import TimeBudget


def newest(folder="saved_models"):
    return checkpoints.load(f"{folder}/tiny", "latest", resume=True)[1]


# ---- a run of so many minutes ----


def test_the_budget_counts_over_several_starts(ticking):
    budget = TimeBudget(minutes=1)
    assert [budget.share() for _ in range(3)] == [1 / 60, 2 / 60, 3 / 60]
    later = TimeBudget(minutes=1)
    later.go_on(30)
    assert later.spent() == 31
    assert TimeBudget(minutes=0).share() == 0


@pytest.mark.parametrize(("spent", "factor"), [(0, 1), (0.5, 1), (0.75, 0.5), (0.9, 0.2), (1, 0), (1.01, 0)])
def test_the_learning_rate_is_constant_for_half_of_the_time_then_falls_to_zero(spent, factor):
    sizes = ["--ngf=4", "--ndf=4", "--n_residual_blocks=0"]
    for flags, by_epoch in ((["--minutes=9"], 1), (["--minutes=9", "--n_epochs=8"], 0.5)):
        options = parse_training([*sizes, *flags])[0]
        model = CycleGAN(options, torch.device("cpu"))
        model.set_schedule(6, spent)
        rates = [
            group["lr"] for optimizer in (model.optimizer_G, model.optimizer_D) for group in optimizer.param_groups
        ]
        assert rates == pytest.approx([factor * by_epoch * options.lr] * 4)  # Muon's and Adam's of both


def test_a_run_ends_with_its_minutes_and_a_stopped_one_uses_what_is_left(workplace, run, refused, ticking):
    flags = [*TINY, "--checkpoint_interval=0", "--sample_interval=0"]
    straight = run("cycle_gan", *flags, "--minutes=2", "--checkpoint_dir=straight")
    assert straight.code == 0, straight.err
    assert "for 2 minutes (so it is not repeatable to the last bit)" in straight.out and "duration" not in straight.out
    whole = newest("straight")
    assert 120 <= whole["seconds"] < 125 and whole["options"]["n_epochs"] == ENDLESS
    rate = whole["training"]["optimizer_G"]["param_groups"][0]["lr"]  # of the last step, two looks at the clock earlier
    assert 0 <= rate < 0.05 * whole["options"]["lr"]

    assert run("cycle_gan", *flags, "--minutes=2", "--n_epochs=9").code == 0
    assert newest()["seconds"] < 60
    again = run("cycle_gan", "--dataset_name=tiny", "--epoch=latest", f"--n_epochs={ENDLESS}")
    assert again.code == 0, again.err
    both = newest()
    assert 120 <= both["seconds"] < 125 and abs(both["steps"] - whole["steps"]) < 0.1 * whole["steps"]
    assert run("test", "--dataset_name=tiny", "--n_cpu=0").code == 0
    line = refused("cycle_gan", "--dataset_name=tiny", "--epoch=latest")
    assert "of --minutes 2, which counts all since the start; raise it" in line
    more = run("cycle_gan", "--dataset_name=tiny", "--epoch=latest", "--minutes=3")
    assert more.code == 0 and newest()["seconds"] >= 180
    assert "was falling in the second half of 2 minutes, now it is falling in the second half of 3 minutes" in more.out


def test_a_run_of_so_many_minutes_is_saved_by_the_clock():
    """Of a few images, epochs may last a second: files of them all would fill a disk."""

    def saved(*flags):
        options = parse_training(list(flags))[0]
        return options.checkpoint_interval, options.checkpoint_every

    assert saved() == (5, "0") and saved("--minutes=30") == (0, "10m")
    assert saved("--minutes=30", "--checkpoint_interval=2", "--checkpoint_every=1m") == (2, "1m")


def test_epochs_beside_minutes_are_told():
    def options(*flags):
        return parse_training(["--minutes=30", *flags])[0]

    assert texts.until(options()) == "for 30 minutes (so it is not repeatable to the last bit)"
    assert "for 30 minutes, or up to epoch 20 where that comes first (so" in texts.until(options("--n_epochs=20"))
    before, after = options("--n_epochs=20", "--decay_epoch=10"), options("--n_epochs=40", "--decay_epoch=20")
    assert "half of 30 minutes, and falling after epoch 20 to 0 at 40" in texts.schedule_change(before, after, 15)
    assert texts.schedule_change(before, before, 15) == ""


# ---- --epoch auto ----


def test_auto_starts_anew_goes_on_and_is_content_at_the_end(workplace):
    """One command line, as a queue that preempts repeats it."""

    def repeat(n_epochs):
        return run_process("cycle_gan.py", *TINY, "--epoch=auto", f"--n_epochs={n_epochs}", cwd=workplace)

    first, second, third = repeat(1), repeat(2), repeat(2)
    assert "starting from scratch" in first.stdout and "resuming after epoch 1" in second.stdout
    assert "epoch_2.pth is trained to epoch 2" in third.stdout
    assert [result.returncode for result in (first, second, third)] == [0, 0, 0], third.stderr
    assert not (workplace / "saved_models/tiny.1").exists()


def test_auto_starts_anew_where_a_run_died_before_its_first_checkpoint(workplace, run):
    (workplace / "saved_models/tiny").mkdir(parents=True)
    (workplace / "saved_models/tiny/runs.jsonl").write_text("{}\n")
    result = run("cycle_gan", *TINY, "--epoch=auto", "--n_epochs=1")
    assert result.code == 0 and "starting from scratch" in result.out


# ---- how long it will take ----


def follow(steps, seconds_a_step, monkeypatch, *flags):
    """What is said in a run of so many steps, with 100 images; each of the first two takes a minute more."""
    run = SimpleNamespace(options=parse_training(list(flags))[0], dataset=range(100), epoch=0, sample=0, steps=0)
    clock, said = 0.0, []
    forecast = Forecast(run)
    for run.steps in range(1, steps + 1):
        run.epoch, run.sample = divmod(run.steps, 100)
        clock += seconds_a_step + 60 * (run.steps < 3)
        monkeypatch.setattr(texts, "time", SimpleNamespace(monotonic=lambda now=clock: now))
        if line := forecast.after(run):
            said.append((run.steps, line))
    return said


def test_after_the_first_steps_one_line_says_how_long_it_takes(monkeypatch):
    ((step, line),) = follow(200, 0.25, monkeypatch, "--n_epochs=10")
    assert step == 3 + 5 / 0.25  # at least five seconds
    assert line == f"duration    about {(1000 - 23) * 0.25 / 60:.0f} minutes from here on this machine, 0.25 s a step"
    ((step, line),) = follow(30, 10, monkeypatch, "--ngf=48")
    assert step == 3 + 10 and "about 56 hours" in line
    assert line.endswith(
        "it would be shorter with --img_height 128 --img_width 128, with --ngf 24 --ndf 32, "
        "or with --minutes 600 for as long as that"
    )
    assert follow(30, 10, monkeypatch, "--minutes=5") == []


def test_a_duration_in_words():
    options = parse_training(["--eval_interval=1"])[0]
    line = texts.duration(1.2, 0.1, options)
    assert line == "duration    about 1 second from here on this machine, without its evaluations, 0.1 s a step"
    assert "about 6 days from here" in texts.duration(6 * 24 * 3600, 1, options)


def test_an_evaluation_among_the_first_steps_is_none_of_them(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(texts, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    run = SimpleNamespace(options=parse_training(["--n_epochs=10"])[0], dataset=range(100), epoch=0, sample=0, steps=0)
    forecast, said = Forecast(run), []
    for run.steps in range(1, 31):
        run.sample, clock[0] = run.steps, clock[0] + 1
        said += filter(None, [forecast.after(run)])
        if run.steps in (2, 8):
            clock[0] += 600
            forecast.leave_out(600)
    assert said == ["duration    about 16 minutes from here on this machine, 1 s a step"]


@pytest.mark.parametrize("gen_net", GENERATORS)
def test_the_smaller_crop_that_is_advised_is_one_that_can_be_had(gen_net):
    for side in range(32, 400, 8):
        flags = [f"--img_height={side}", f"--img_width={side + 8}", f"--gen_net={gen_net}"]
        options = parse_training(flags)[0]
        (advised,) = smaller_crop(options)
        smaller = parse_training([*flags, *advised.split()])[0]  # raises UserError where it is refused
        assert smaller.img_height * smaller.img_width < options.img_height * options.img_width


@pytest.mark.parametrize(("height", "width"), [(16, 16), (24, 32), (32, 32)])
def test_no_crop_is_advised_that_is_not_smaller(height, width):
    assert smaller_crop(Namespace(img_height=height, img_width=width, preprocess="crop")) == []
    assert smaller_crop(Namespace(img_height=256, img_width=256, preprocess="none")) == []


def test_the_bar_says_how_much_of_the_time_is_gone(ticking):
    run = SimpleNamespace(options=parse_training(["--minutes=2"])[0], epoch=3, time=TimeBudget(2))
    run.time.go_on(58)
    assert place(run) == "epoch 4, 49 % of 2 minutes"
    run.options.n_epochs = 3
    assert place(run) == "epoch 3, 50 % of 2 minutes"
