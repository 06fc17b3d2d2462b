"""Train an Attention CycleGAN: ``python cycle_gan.py --dataset_name monet2photo``; ``--help`` lists the flags."""

import sys
from itertools import islice
from pathlib import Path

import torch
from tqdm import tqdm

import checkpoints
import download
from datasets import EpochBatches, UnpairedImages, check_headers, list_images, load_batches, sample_images
from errors import UserError, exit_cleanly
from losses import CriticObjective, GeneratorObjective
from models import build_critic, build_generator
from options import TRAIN, parse, resume
from utils import LossLog, RandomState, ReplayBuffer, SampleGrid, averaged, check_writable, count_workers, pick_device

SAMPLE_ROWS = 6

# ---------------------------------------------------------------------------------------------------------------------
# What is trained
# ---------------------------------------------------------------------------------------------------------------------


class CycleGAN:
    """Two generators, two critics, and all that a training step of theirs depends on."""

    def __init__(self, options, device):
        G_AB, G_BA = (build_generator(options).to(device) for _ in range(2))
        D_A, D_B = (build_critic(options).to(device) for _ in range(2))
        self.generator_objective = GeneratorObjective(
            G_AB, G_BA, D_A, D_B, options.gan_mode, options.lambda_cyc, options.lambda_id
        )
        self.critic_objective = CriticObjective(D_A, D_B, options.gan_mode, options.lambda_gp)
        betas = (options.b1, options.b2)
        self.optimizer_G = torch.optim.Adam(self.generator_objective.parameters(), options.lr, betas)
        self.optimizer_D = torch.optim.Adam(self.critic_objective.parameters(), options.lr, betas)
        self.average_AB = averaged(G_AB, options.ema_decay)
        self.average_BA = averaged(G_BA, options.ema_decay)
        self.buffer_A = ReplayBuffer(seed=options.seed, device=device)
        self.buffer_B = ReplayBuffer(seed=options.seed + 1, device=device)
        self.random = RandomState()

    @property
    def generators(self):
        """The averaged generators, G_AB and G_BA: those that translate."""
        return self.average_AB.module, self.average_BA.module

    def set_lr(self, lr):
        for group in self.optimizer_G.param_groups + self.optimizer_D.param_groups:
            group["lr"] = lr

    @torch.no_grad()
    def translate(self, real_A, real_B):
        """fake_A and fake_B, for a step that moves the critics alone."""
        return self.generator_objective.G_BA(real_B), self.generator_objective.G_AB(real_A)

    def generator_step(self, real_A, real_B):
        """One step of both generators; returns their GeneratorLosses."""
        losses = self.generator_objective(real_A, real_B)
        self.optimizer_G.zero_grad()
        losses.total.backward()
        self.optimizer_G.step()
        self.average_AB.update_parameters(self.generator_objective.G_AB)
        self.average_BA.update_parameters(self.generator_objective.G_BA)
        return losses

    def critic_step(self, real_A, fake_A, real_B, fake_B):
        """One step of both critics on real images and on the history of fake ones; returns their CriticLosses."""
        fake_A, fake_B = self.buffer_A.push_and_pop(fake_A), self.buffer_B.push_and_pop(fake_B)
        losses = self.critic_objective(real_A, fake_A, real_B, fake_B)
        self.optimizer_D.zero_grad()
        losses.total.backward()
        self.optimizer_D.step()
        return losses

    def _parts(self):
        return {name: part for name, part in vars(self).items() if hasattr(part, "state_dict")}

    def state_dict(self):
        return {name: part.state_dict() for name, part in self._parts().items()}

    def load_state_dict(self, state):
        for name, part in self._parts().items():
            part.load_state_dict(state[name])


def lr_factor(epoch, n_epochs, decay_epoch):
    """What ``lr`` is multiplied by: 1 up to ``decay_epoch``, then falling linearly to reach 0 after the last epoch."""
    return 1 - max(0, epoch - decay_epoch) / max(1, n_epochs - decay_epoch)


# ---------------------------------------------------------------------------------------------------------------------
# Training
# ---------------------------------------------------------------------------------------------------------------------


def main():
    options, given = parse(TRAIN, __doc__)
    saved = None
    if options.epoch != 0:
        saved = checkpoints.load_full(checkpoints.find_checkpoint(checkpoint_folder(options), options.epoch))
        options = resume(options, given, saved["options"])
        if saved["epoch"] >= options.n_epochs:
            raise UserError(f"epoch {saved['epoch']} is already trained; raise --n_epochs above it to go on")
    train(options, saved)


def train(options, saved=None):
    """Train from scratch, or from the checkpoint ``saved``, up to ``options.n_epochs``."""
    # ---- data, networks, where output goes ----
    device = pick_device(options.device)
    folder = download.find_dataset(options)
    paths = {side: check_headers(list_images(folder / side), options.skip_bad_images) for side in ("trainA", "trainB")}
    dataset = UnpairedImages(
        paths["trainA"], paths["trainB"], options.img_height, options.img_width,
        options.channels, options.seed, options.skip_bad_images,
    )  # fmt: skip
    grid = SampleGrid(*(grid_images(folder, side, paths, options).to(device) for side in "AB"))
    images_folder, saves_folder = image_folder(options), checkpoint_folder(options)
    for output in (images_folder, saves_folder):
        if saved is None and output.exists() and any(output.iterdir()):
            checkpoints.set_aside(output)
        check_writable(output)

    torch.manual_seed(options.seed)
    model = CycleGAN(options, device)
    first_epoch = steps = 0
    if saved is not None:
        model.load_state_dict(saved["training"])
        first_epoch, steps = saved["epoch"], saved["steps"]
    print(summary(options, model, dataset, device, first_epoch))

    # ---- the loop ----
    schedule = EpochBatches(len(dataset), options.batch_size, first_epoch, options.n_epochs)
    batches = load_batches(dataset, schedule, count_workers(options.n_cpu), pin_memory=device.type == "cuda")
    decay_epoch = options.n_epochs // 2 if options.decay_epoch is None else options.decay_epoch
    log, skipped = LossLog(), set()
    with progress_bar(len(dataset), first_epoch, options.n_epochs) as bar:
        for epoch in range(first_epoch, options.n_epochs):
            bar.set_description(f"epoch {epoch + 1}/{options.n_epochs}", refresh=False)
            model.set_lr(options.lr * lr_factor(epoch, options.n_epochs, decay_epoch))

            for batch in islice(batches, schedule.batches_per_epoch):
                steps += 1
                real_A, real_B = (batch[side].to(device, non_blocking=True) for side in "AB")
                if steps % options.n_critic == 0:
                    losses = model.generator_step(real_A, real_B)
                    log.add(steps, losses.terms())
                    fake_A, fake_B = losses.fake_A, losses.fake_B
                else:
                    fake_A, fake_B = model.translate(real_A, real_B)
                losses = model.critic_step(real_A, fake_A, real_B, fake_B)
                log.add(steps, losses.terms())

                skipped.update(batch["skipped"])
                if bar.update(len(real_A)):  # true when the bar is drawn, once a second
                    show(bar, log)
                if options.sample_interval and steps % options.sample_interval == 0:
                    grid.save(*model.generators, images_folder / f"{steps}.png")

            last = epoch + 1 == options.n_epochs
            if last or (options.checkpoint_interval and (epoch + 1) % options.checkpoint_interval == 0):
                show(bar, log)  # stops at a loss that is not finite, before it is saved over a good state
                checkpoints.save(saves_folder, checkpoint_state(options, model, epoch + 1, steps), options.keep)
    if options.sample_interval:
        grid.save(*model.generators, images_folder / f"{steps}.png")
    print(closing_words(options, skipped))


# ---------------------------------------------------------------------------------------------------------------------
# Around it
# ---------------------------------------------------------------------------------------------------------------------


def checkpoint_folder(options):
    return Path(options.checkpoint_dir) / options.dataset_name


def image_folder(options):
    return Path(options.images_dir) / options.dataset_name


def grid_images(folder, side, paths, options):
    """The images of one domain, "A" or "B", that the sample grids show: from its test folder, if it has one."""
    test = f"test{side}"
    if (folder / test).is_dir():
        chosen = check_headers(list_images(folder / test), options.skip_bad_images)
    else:
        print(f"{folder} has no {test}: sample grids show training images")
        chosen = paths[f"train{side}"]
    size = options.img_height, options.img_width
    return sample_images(chosen, SAMPLE_ROWS, size, options.channels, options.skip_bad_images)


def checkpoint_state(options, model, epoch, steps):
    """What a checkpoint holds; ``checkpoints.py`` describes it."""
    G_AB, G_BA = model.generators
    return {
        "epoch": epoch,
        "steps": steps,
        "options": vars(options),
        "generators": {"G_AB": G_AB.state_dict(), "G_BA": G_BA.state_dict()},
        "training": model.state_dict(),
    }


def summary(options, model, dataset, device, first_epoch):
    """What is about to happen, in a few lines."""

    def millions(module):
        return f"{sum(p.numel() for p in module.parameters()) / 1e6:.1f} M"

    name = torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
    start = f"resuming after epoch {first_epoch}" if first_epoch else "starting anew"
    return (
        f"data        {options.dataset_name}: {len(dataset.paths_A)} A, {len(dataset.paths_B)} B, "
        f"crops of {options.img_height}×{options.img_width}\n"
        f"networks    {millions(model.generator_objective)} parameters in the generators, "
        f"{millions(model.critic_objective)} in the critics\n"
        f"training    {options.gan_mode}, {start}, up to epoch {options.n_epochs}, on {name}\n"
        f"output      {image_folder(options)}/ and {checkpoint_folder(options)}/"
    )


def progress_bar(n_samples, first_epoch, n_epochs):
    """One bar for the whole run, in images of each side; drawn once a second, or each half minute into a file."""
    return tqdm(
        total=n_samples * n_epochs,
        initial=n_samples * first_epoch,
        unit="img",
        mininterval=1 if sys.stderr.isatty() else 30,
        maxinterval=60,
        miniters=1,
        dynamic_ncols=True,
    )


def show(bar, log):
    """Read the losses off the device and write them behind the bar."""
    bar.set_postfix({name: f"{mean:.3g}" for name, mean in log.read().items()}, refresh=False)


def closing_words(options, skipped):
    bad = (
        f"{len(skipped)} images could not be read, others took their place: {', '.join(sorted(skipped))}\n"
        if skipped
        else ""
    )
    return (
        f"{bad}done; sample grids are in {image_folder(options)}/, "
        f"and this translates the test folders: python test.py --dataset_name {options.dataset_name}"
    )


if __name__ == "__main__":
    exit_cleanly(main)
