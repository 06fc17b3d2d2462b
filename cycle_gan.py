"""Train an Attention CycleGAN: ``python cycle_gan.py --dataset_name monet2photo``; ``--help`` lists the flags."""

import sys
from itertools import islice
from pathlib import Path

import torch
from tqdm import tqdm

import checkpoints
import download
from datasets import EpochBatches, UnpairedImages, check_headers, find_side, list_images, load_batches, sample_images
from errors import UserError, exit_cleanly
from losses import CriticObjective, GeneratorObjective
from models import build_critic, sees_samples_alone
from options import parse_training, resume
from translators import Translators
from utils import LossLog, RandomState, ReplayBuffer, SampleGrid, averaged, check_writable, count_workers, pick_device

SAMPLE_ROWS = 6

# ---------------------------------------------------------------------------------------------------------------------
# What is trained
# ---------------------------------------------------------------------------------------------------------------------


class CycleGAN:
    """Two generators, two critics, and all that a training step of theirs depends on."""

    def __init__(self, options, device):
        self.options = options
        lambda_id = options.lambda_id if options.idt_coef is None else options.idt_coef * options.lambda_cyc
        translators = Translators(options).to(device)
        D_A, D_B = (build_critic(options).to(device) for _ in range(2))
        self.generator_objective = GeneratorObjective(
            translators, D_A, D_B, options.gan_mode, options.lambda_cyc, lambda_id
        )
        penalty = chosen_penalty(options)
        weight = {"none": 0, "wgan-gp": options.lambda_gp, "r1": options.lambda_r1}[penalty]
        self.critic_objective = CriticObjective(D_A, D_B, options.gan_mode, penalty, weight)
        betas = (options.b1, options.b2)
        self.optimizer_G = torch.optim.Adam(self.generator_objective.parameters(), options.lr, betas)
        self.optimizer_D = torch.optim.Adam(self.critic_objective.parameters(), options.lr, betas)
        self.average = averaged(translators, options.ema_decay)
        self.buffer_A = ReplayBuffer(seed=options.seed, device=device)
        self.buffer_B = ReplayBuffer(seed=options.seed + 1, device=device)
        self.random = RandomState()

    @property
    def translators(self):
        """The generators in training; the averaged ones, which translate, are ``average.module``."""
        return self.generator_objective.translators

    def start_epoch(self, epoch):
        """Set what depends on the epoch: the learning rate, and whether learned masks are fixed."""
        lr = self.options.lr * lr_factor(epoch, self.options.n_epochs, self.options.decay_epoch)
        for group in self.optimizer_G.param_groups + self.optimizer_D.param_groups:
            group["lr"] = lr
        self.translators.masks.start_epoch(epoch)

    def half_steps(self, step):
        """The half steps of training step number ``step`` in their order; each takes a batch and returns its losses."""
        generators = [self.generator_step] if step % self.options.n_critic == 0 else []
        return [self.critic_step, *generators] if self.options.critic_first else [*generators, self.critic_step]

    def generator_step(self, batch):
        """One step of both generators on ``batch`` {"A", "B"}; adds their translations to it as fake_A and fake_B."""
        losses = self.generator_objective(batch["A"], batch["B"])
        self.optimizer_G.zero_grad()
        losses.total.backward()
        self.optimizer_G.step()
        self.average.update_parameters(self.translators)
        batch |= {"fake_A": losses.fake_A, "fake_B": losses.fake_B}
        return losses

    def critic_step(self, batch):
        """One step of both critics on real images and on the history of fake ones."""
        if "fake_A" not in batch:  # the generators have not seen this batch
            batch |= self._translate(batch)
        seen_real = self.translators.masks.seen_real
        losses = self.critic_objective(
            seen_real("A", batch["A"]),
            self.buffer_A.push_and_pop(batch["fake_A"]),
            seen_real("B", batch["B"]),
            self.buffer_B.push_and_pop(batch["fake_B"]),
        )
        self.optimizer_D.zero_grad()
        losses.total.backward()
        self.optimizer_D.step()
        return losses

    @torch.no_grad()
    def _translate(self, batch):
        (fake_B, mask_A), (fake_A, mask_B) = (self.translators.translate(side, batch[side]) for side in "AB")
        seen = self.translators.masks.seen
        return {"fake_A": seen(fake_A, mask_B), "fake_B": seen(fake_B, mask_A)}

    def _parts(self):
        return {name: part for name, part in vars(self).items() if hasattr(part, "state_dict")}

    def state_dict(self):
        return {name: part.state_dict() for name, part in self._parts().items()}

    def load_state_dict(self, state):
        for name, part in self._parts().items():
            part.load_state_dict(state[name])


def chosen_penalty(options):
    """``--penalty``; where it is not given, the Wasserstein loss has its own and the others none."""
    return options.penalty or ("wgan-gp" if options.gan_mode == "wgan-gp" else "none")


def lr_factor(epoch, n_epochs, decay_epoch):
    """What ``lr`` is multiplied by: 1 up to ``decay_epoch``, then falling linearly to reach 0 after the last epoch."""
    decay_epoch = n_epochs // 2 if decay_epoch is None else decay_epoch
    return 1 - max(0, epoch - decay_epoch) / max(1, n_epochs - decay_epoch)


# ---------------------------------------------------------------------------------------------------------------------
# Training
# ---------------------------------------------------------------------------------------------------------------------


def main():
    options, given = parse_training()
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
    paths = {
        side: check_headers(list_images(find_side(folder, "train", side)), options.skip_bad_images) for side in "AB"
    }
    dataset = UnpairedImages(paths["A"], paths["B"], options)
    grid = SampleGrid(*(grid_images(folder, side, paths[side], options).to(device) for side in "AB"))
    torch.manual_seed(options.seed)
    model = CycleGAN(options, device)
    check_networks(options, model.translators.G_AB, model.critic_objective.D_A)

    images_folder, saves_folder = image_folder(options), checkpoint_folder(options)
    for output in (images_folder, saves_folder):
        if saved is None and output.exists() and any(output.iterdir()):
            checkpoints.set_aside(output)
        check_writable(output)

    first_epoch = steps = 0
    if saved is not None:
        model.load_state_dict(saved["training"])
        first_epoch, steps = saved["epoch"], saved["steps"]
    print(summary(options, model, dataset, device, first_epoch))

    # ---- the loop ----
    schedule = EpochBatches(len(dataset), options.batch_size, first_epoch, options.n_epochs)
    batches = load_batches(dataset, schedule, count_workers(options.n_cpu), pin_memory=device.type == "cuda")
    log, skipped = LossLog(), set()
    with progress_bar(len(dataset), first_epoch, options.n_epochs) as bar:
        for epoch in range(first_epoch, options.n_epochs):
            bar.set_description(f"epoch {epoch + 1}/{options.n_epochs}", refresh=False)
            model.start_epoch(epoch)

            for batch in islice(batches, schedule.batches_per_epoch):
                steps += 1
                batch |= {side: batch[side].to(device, non_blocking=True) for side in "AB"}
                for half_step in model.half_steps(steps):
                    log.add(steps, half_step(batch).terms())

                skipped.update(batch["skipped"])
                if bar.update(len(batch["A"])):  # true when the bar is drawn, once a second
                    show(bar, log)
                if options.sample_interval and steps % options.sample_interval == 0:
                    grid.save(model.average.module, images_folder / f"{steps}.png")

            last = epoch + 1 == options.n_epochs
            if last or (options.checkpoint_interval and (epoch + 1) % options.checkpoint_interval == 0):
                show(bar, log)  # stops at a loss that is not finite, before it is saved over a good state
                checkpoints.save(saves_folder, checkpoint_state(options, model, epoch + 1, steps), options.keep)
    if options.sample_interval:
        grid.save(model.average.module, images_folder / f"{steps}.png")
    print(closing_words(options, skipped))


# ---------------------------------------------------------------------------------------------------------------------
# Around it
# ---------------------------------------------------------------------------------------------------------------------


def checkpoint_folder(options):
    return Path(options.checkpoint_dir) / options.dataset_name


def image_folder(options):
    return Path(options.images_dir) / options.dataset_name


def check_networks(options, generator, critic):
    """Raise UserError if crops, norm and penalty are not what the networks can take."""
    if not sees_samples_alone(critic) and chosen_penalty(options) != "none":
        raise UserError("a penalty needs the critic's slope at each image alone: --norm batch goes with --penalty none")
    least = max(generator.min_size, critic.min_size)
    for name, side, load in (
        ("img_height", options.img_height, options.load_height),
        ("img_width", options.img_width, options.load_width),
    ):
        if load is not None and load < side:
            raise UserError(
                f"--{name} {side} is larger than --{name.replace('img', 'load')} {load}, from which it is cut"
            )
        if side < least or side % generator.multiple:
            raise UserError(
                f"--{name} must be divisible by {generator.multiple} and at least {least} for --gen_net "
                f"{options.gen_net} and --dis_net {options.dis_net}, not {side}"
            )


def grid_images(folder, side, train_paths, options):
    """The images of one domain, "A" or "B", that the sample grids show: from its test folder, if it has one."""
    if (test := find_side(folder, "test", side)).is_dir():
        chosen = check_headers(list_images(test), options.skip_bad_images)
    else:
        print(f"there is no {test}: sample grids show training images")
        chosen = train_paths
    size = options.img_height, options.img_width
    return sample_images(chosen, SAMPLE_ROWS, size, options.channels, options.skip_bad_images)


def checkpoint_state(options, model, epoch, steps):
    """What a checkpoint holds; ``checkpoints.py`` describes it."""
    return {
        "epoch": epoch,
        "steps": steps,
        "options": vars(options),
        "generators": model.average.module.state_dict(),
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
        f"networks    {millions(model.translators)} parameters in the generators, "
        f"{millions(model.critic_objective)} in the critics\n"
        f"objective   {options.recipe} recipe: {options.gan_mode}, penalty {chosen_penalty(options)}\n"
        f"training    {start}, up to epoch {options.n_epochs}, on {name}\n"
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
